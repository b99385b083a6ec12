#!/usr/bin/env bash
# Two hosts joined by one switch, for each switch in turn: TCP with 1 and 4 streams, 64-byte UDP, and request/response
# latency, all in one run. Prints a Markdown table with each figure's ratio to the kernel bridge.
#
# usage: benches/ports.sh [SECONDS] [SWITCH...]
#   SWITCH: bridge sluice-tap sluice-af-packet sluice-af-xdp ovs ovs-tso ovs-af-xdp (default: all)
#
# Everything happens in network namespaces that the script makes and removes. Needs root and the packages of
# xtask/setup.sh, and a release build of sluice.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-4}
shift || true
switches=${*:-bridge sluice-tap sluice-af-packet sluice-af-xdp ovs ovs-tso ovs-af-xdp}
bin=${CARGO_TARGET_DIR:-target}/release
tmp=$(mktemp -d /tmp/sluice-bench.XXXXXX)
export SLUICE_RUNTIME_DIR=$tmp/run
a=sb$$-a b=sb$$-b s=sb$$-s # host, host, switch
pids=()

stop() { kill "$@" 2>/dev/null && wait "$@" 2>/dev/null || true; }
stop_started() {
    local pid
    for pid in "${pids[@]}"; do stop "$pid"; done
    pids=()
}
hosts_down() { for ns in "$a" "$b" "$s"; do ip netns del "$ns" 2>/dev/null || true; done; }
cleanup() {
    set +e
    stop_started
    "$bin/sluice" lab down bench >/dev/null 2>&1
    hosts_down
    rm -rf "$tmp"
}
trap cleanup EXIT

# Two hosts whose other ends, va and vb, are in the switch's namespace.
hosts_up() {
    local n=1 side ns
    for ns in "$a" "$b" "$s"; do
        ip netns add "$ns"
        ip -n "$ns" link set lo up
    done
    for side in a b; do
        ns=$a
        [ $side = a ] || ns=$b
        ip -n "$s" link add v$side type veth peer name eth0 netns "$ns"
        ip -n "$ns" addr add 10.0.0.$n/24 dev eth0
        ip -n "$ns" link set eth0 up
        ip -n "$s" link set v$side up
        n=$((n + 1))
    done
}

in_a() { ip netns exec "$a" "$@"; }
in_b() { ip netns exec "$b" "$@"; }

reachable() {
    for _ in $(seq 50); do
        $1 ping -c 1 -W 1 10.0.0.2 >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "$0: 10.0.0.2 does not answer" >&2
    return 1
}

# measure NAME CLIENT SERVER: appends "NAME tcp1 tcp4 udp p50 p99" to the results.
measure() {
    local name=$1 client=$2 server=$3 tcp1 tcp4 udp latency
    reachable "$client"
    $server iperf3 --server --port 5201 >/dev/null 2>&1 &
    pids+=($!)
    sleep 0.5
    tcp1=$($client iperf3 -c 10.0.0.2 -t "$seconds" -J | jq '.end.sum_received.bits_per_second / 1e9')
    tcp4=$($client iperf3 -c 10.0.0.2 -t "$seconds" -P 4 -J | jq '.end.sum_received.bits_per_second / 1e9')
    udp=$($client iperf3 -c 10.0.0.2 -u -b 0 -l 64 -t "$seconds" -J |
        jq '(.end.sum.packets - .end.sum.lost_packets) / .end.sum.seconds / 1e3')
    stop_started
    $server sockperf server -i 10.0.0.2 -p 11111 >/dev/null 2>&1 &
    pids+=($!)
    sleep 0.5
    latency=$($client sockperf ping-pong -i 10.0.0.2 -p 11111 -t "$seconds" -m 64 2>/dev/null |
        sed 's/\x1b\[[0-9;]*m//g' |
        awk '/percentile 50.000/ {p50 = $NF} /percentile 99.000/ {p99 = $NF} END {print p50 + 0, p99 + 0}')
    stop_started
    echo "$name $tcp1 $tcp4 $udp $latency" >>"$tmp/results"
    echo "measured $name" >&2
}

run_bridge() {
    hosts_up
    ip -n "$s" link add br0 type bridge
    ip -n "$s" link set br0 up
    ip -n "$s" link set va master br0
    ip -n "$s" link set vb master br0
    measure bridge in_a in_b
    hosts_down
}

in_h1() { "$bin/sluice" lab exec --lab bench h1 -- "$@"; }
in_h2() { "$bin/sluice" lab exec --lab bench h2 -- "$@"; }

# lab NAME ATTACH: our switch, joined to the hosts by TAPs or by veth pairs with packet sockets.
lab() {
    "$bin/sluice" lab up --topo single,2 --name bench --attach "$2" >/dev/null
    measure "$1" in_h1 in_h2
    "$bin/sluice" lab down bench >/dev/null
}
run_sluice-tap() { lab sluice-tap tap; }
run_sluice-af-packet() { lab sluice-af-packet veth; }
run_sluice-af-xdp() { lab sluice-af-xdp af-xdp; }

# ovs_bridge NAME TYPE [other_config...]: Open vSwitch's user-space datapath with interfaces of this type, run from a folder
# of its own.
ovs_bridge() {
    local name=$1 type=$2 dir=$tmp/ovs config
    shift 2
    hosts_up
    rm -rf "$dir"
    mkdir -p "$dir"
    export OVS_RUNDIR=$dir OVS_DBDIR=$dir OVS_LOGDIR=$dir
    ovsdb-tool create "$dir/conf.db" /usr/share/openvswitch/vswitch.ovsschema
    ip netns exec "$s" ovsdb-server "$dir/conf.db" --remote="punix:$dir/db.sock" --log-file="$dir/db.log" \
        --verbose=console:off --unixctl="$dir/db.ctl" &
    local db=$!
    local vsctl="ovs-vsctl --timeout=10 --db=unix:$dir/db.sock"
    for _ in $(seq 50); do [ -S "$dir/db.sock" ] && break || sleep 0.1; done
    $vsctl --no-wait init
    for config in "$@"; do $vsctl --no-wait set Open_vSwitch . "other_config:$config"; done
    ip netns exec "$s" ovs-vswitchd "unix:$dir/db.sock" --log-file="$dir/vs.log" --verbose=console:off \
        --unixctl="$dir/vs.ctl" &
    local switchd=$!
    $vsctl add-br br0 -- set bridge br0 datapath_type=netdev \
        -- add-port br0 va -- set interface va "type=$type" -- add-port br0 vb -- set interface vb "type=$type"
    if [ $# = 0 ]; then
        # Without its TSO option, OVS cannot take what the hosts leave to the device.
        for ns in "$a" "$b"; do ip netns exec "$ns" ethtool -K eth0 tx off tso off gso off >/dev/null; done
    fi
    measure "$name" in_a in_b
    stop "$switchd" "$db"
    hosts_down
}
run_ovs() { ovs_bridge ovs system; }
run_ovs-tso() { ovs_bridge ovs-tso system userspace-tso-enable=true; }
run_ovs-af-xdp() { ovs_bridge ovs-af-xdp afxdp; }

for switch in $switches; do "run_$switch"; done

echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(date -I)," \
    "$seconds s each. In brackets: ratio to the first row."
echo
awk '
function cell(value, base, unit) { return sprintf("%.1f %s (%.2fx)", value, unit, base > 0 ? value / base : 0) }
NR == 1 {
    split($0, first)
    print "| switch | TCP 1 stream | TCP 4 streams | UDP 64 B | latency p50 | latency p99 |"
    print "|---|---|---|---|---|---|"
}
{
    printf "| %s | %s | %s | %s | %s | %s |\n", $1, cell($2, first[2], "Gb/s"), cell($3, first[3], "Gb/s"),
        cell($4, first[4], "kpps"), cell($5, first[5], "us"), cell($6, first[6], "us")
}' "$tmp/results"
