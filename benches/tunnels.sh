#!/usr/bin/env bash
# Two switches joined by an underlay, a veth pair, with and without a tunnel on it: TCP with 1 and 4 streams, 64-byte
# UDP, and request/response latency, all in one run. Prints a Markdown table with each figure's ratio to the first row.
#
# usage: benches/tunnels.sh [SECONDS] [CASE...]
#   CASE: sluice-none sluice-vxlan sluice-geneve kernel-vxlan kernel-geneve ovs-vxlan (default: all)
#
# Everything happens in network namespaces that the script makes and removes. Needs root and the packages of
# xtask/setup.sh, and a release build of sluice.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-4}
shift || true
cases=${*:-sluice-none sluice-vxlan sluice-geneve kernel-vxlan kernel-geneve ovs-vxlan}
bin=${CARGO_TARGET_DIR:-target}/release
tmp=$(mktemp -d /tmp/sluice-bench.XXXXXX)
a=st$$-a b=st$$-b # the switches; each one's host is behind its bridge's own port
mtu=1400
pids=() servers=()

stop() { kill "$@" 2>/dev/null && wait "$@" 2>/dev/null || true; }
cleanup() {
    set +e
    for pid in "${servers[@]}" "${pids[@]}"; do stop "$pid"; done
    for ns in "$a" "$b"; do ip netns del "$ns" 2>/dev/null; done
    rm -rf "$tmp"
}
trap cleanup EXIT

up() {
    local ns n=1
    for ns in "$a" "$b"; do
        ip netns add "$ns"
        ip -n "$ns" link set lo up
    done
    ip -n "$a" link add wire type veth peer name wire netns "$b"
    for ns in "$a" "$b"; do
        ip -n "$ns" link set wire up
        [ "$1" = bare ] || ip -n "$ns" addr add 192.0.2.$n/24 dev wire
        n=$((n + 1))
    done
}
down() {
    local pid
    for pid in "${pids[@]}"; do stop "$pid"; done
    pids=()
    for ns in "$a" "$b"; do ip netns del "$ns" 2>/dev/null || true; done
}
# hosts DEVICE: the hosts' addresses.
hosts() {
    local ns n=1
    for ns in "$a" "$b"; do
        for _ in $(seq 50); do ip -n "$ns" link show "$1" >/dev/null 2>&1 && break || sleep 0.1; done
        ip -n "$ns" addr add 10.0.0.$n/24 dev "$1"
        ip -n "$ns" link set "$1" mtu $mtu up
        n=$((n + 1))
    done
}
in_a() { ip netns exec "$a" "$@"; }
in_b() { ip netns exec "$b" "$@"; }

reachable() {
    for _ in $(seq 50); do
        in_a ping -c 1 -W 1 10.0.0.2 >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "$0: 10.0.0.2 does not answer" >&2
    return 1
}

# measure NAME: appends "NAME tcp1 tcp4 udp p50 p99" to the results.
measure() {
    local name=$1 tcp1 tcp4 udp latency
    reachable
    ip netns exec "$b" iperf3 --server --port 5201 >/dev/null 2>&1 &
    servers=($!)
    sleep 0.5
    tcp1=$(in_a iperf3 -c 10.0.0.2 -t "$seconds" -J | jq '.end.sum_received.bits_per_second / 1e9')
    tcp4=$(in_a iperf3 -c 10.0.0.2 -t "$seconds" -P 4 -J | jq '.end.sum_received.bits_per_second / 1e9')
    udp=$(in_a iperf3 -c 10.0.0.2 -u -b 0 -l 64 -t "$seconds" -J |
        jq '(.end.sum.packets - .end.sum.lost_packets) / .end.sum.seconds / 1e3')
    stop "${servers[@]}"
    ip netns exec "$b" sockperf server -i 10.0.0.2 -p 11111 >/dev/null 2>&1 &
    servers=($!)
    sleep 0.5
    latency=$(in_a sockperf ping-pong -i 10.0.0.2 -p 11111 -t "$seconds" -m 64 2>/dev/null |
        sed 's/\x1b\[[0-9;]*m//g' |
        awk '/percentile 50.000/ {p50 = $NF} /percentile 99.000/ {p99 = $NF} END {print p50 + 0, p99 + 0}')
    stop "${servers[@]}"
    servers=()
    echo "$name $tcp1 $tcp4 $udp $latency" >>"$tmp/results"
    echo "measured $name" >&2
}

# sluice NAME PORT: our switch on both sides; PORT is the TOML of the port that leads to the other, with PEER in it.
sluice() {
    local name=$1 ns n=1
    for ns in "$a" "$b"; do
        {
            printf 'socket = "%s"\n[bridges.br0]\nlocal_port = true\n[bridges.br0.ports.wire]\n' "$tmp/$ns.sock"
            echo "${2//PEER/192.0.2.$((3 - n))}"
        } >"$tmp/$ns.toml"
        ip netns exec "$ns" "$bin/sluiced" --config "$tmp/$ns.toml" --log warn &
        pids+=($!)
        n=$((n + 1))
    done
    hosts br0
    measure "$name"
    down
}
run_sluice-none() {
    up bare
    sluice sluice-none 'type = "af-packet"'
}
run_sluice-vxlan() {
    up with
    sluice sluice-vxlan 'type = "vxlan"
options = { remote_ip = "PEER", key = "7" }'
}
run_sluice-geneve() {
    up with
    sluice sluice-geneve 'type = "geneve"
options = { remote_ip = "PEER", key = "7" }'
}

# kernel NAME WORDS: the kernel's bridge with the kernel's tunnel on both sides.
kernel() {
    local name=$1 ns n=1
    up with
    for ns in "$a" "$b"; do
        # shellcheck disable=SC2086
        ip -n "$ns" link add tun0 type ${2//PEER/192.0.2.$((3 - n))}
        ip -n "$ns" link add br0 type bridge
        ip -n "$ns" link set tun0 master br0 mtu $mtu up
        n=$((n + 1))
    done
    hosts br0
    measure "$name"
    down
}
run_kernel-vxlan() { kernel kernel-vxlan 'vxlan id 7 dstport 4789 remote PEER udpcsum'; }
run_kernel-geneve() {
    # Not every kernel has it.
    if ! unshare -n ip link add tun0 type geneve id 7 remote 192.0.2.1 2>/dev/null; then
        echo "skipped kernel-geneve: this kernel has no geneve" >&2
        return
    fi
    kernel kernel-geneve 'geneve id 7 remote PEER udpcsum'
}

# Open vSwitch's user-space datapath on both sides, each with daemons of its own.
run_ovs-vxlan() {
    local ns n=1 dir vsctl
    up bare
    for ns in "$a" "$b"; do
        dir=$tmp/ovs-$n
        mkdir -p "$dir"
        export OVS_RUNDIR=$dir OVS_DBDIR=$dir OVS_LOGDIR=$dir
        ovsdb-tool create "$dir/conf.db" /usr/share/openvswitch/vswitch.ovsschema
        ovsdb-server "$dir/conf.db" --remote="punix:$dir/db.sock" --log-file="$dir/db.log" --verbose=console:off \
            --unixctl="$dir/db.ctl" &
        pids+=($!)
        vsctl="ovs-vsctl --timeout=10 --db=unix:$dir/db.sock"
        for _ in $(seq 50); do [ -S "$dir/db.sock" ] && break || sleep 0.1; done
        $vsctl --no-wait init
        ip netns exec "$ns" ovs-vswitchd "unix:$dir/db.sock" --log-file="$dir/vs.log" --verbose=console:off \
            --unixctl="$dir/vs.ctl" &
        pids+=($!)
        ip netns exec "$ns" ethtool -K wire tx off >/dev/null
        $vsctl add-br under -- set bridge under datapath_type=netdev -- add-port under wire
        $vsctl add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 tun0 \
            -- set interface tun0 type=vxlan options:remote_ip=192.0.2.$((3 - n)) options:key=7
        ip -n "$ns" addr add 192.0.2.$n/24 dev under
        ip -n "$ns" link set under up
        n=$((n + 1))
    done
    # It takes the other end's hardware address from what it sees.
    for _ in $(seq 50); do in_a ping -c 1 -W 1 192.0.2.2 >/dev/null 2>&1 && break; done
    in_b ping -c 1 -W 1 192.0.2.1 >/dev/null 2>&1 || true
    hosts br0
    measure ovs-vxlan
    down
}

for case in $cases; do "run_$case"; done

echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(date -I)," \
    "$seconds s each. In brackets: ratio to the first row."
echo
awk '
function cell(value, base, unit) { return sprintf("%.1f %s (%.2fx)", value, unit, base > 0 ? value / base : 0) }
NR == 1 {
    for (i = 2; i <= 6; i++) base[i] = $i
    print "| | TCP, 1 stream | TCP, 4 streams | UDP, 64 bytes | latency p50 | latency p99 |"
    print "|---|---|---|---|---|---|"
}
{
    printf "| %s | %s | %s | %s | %s | %s |\n", $1, cell($2, base[2], "Gbit/s"), cell($3, base[3], "Gbit/s"),
        cell($4, base[4], "kpps"), cell($5, base[5], "µs"), cell($6, base[6], "µs")
}' "$tmp/results"
