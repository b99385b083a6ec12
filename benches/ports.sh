#!/usr/bin/env bash
# Two hosts joined by one switch, for each switch in turn and several times over: TCP with 1 and 4 streams, 64-byte UDP, new
# connections, request/response latency, CPU for TCP, and what an idle switch takes and how soon it answers. Prints a Markdown table
# of medians with the least and the most, and ratios to the kernel bridge and to the best Open vSwitch; draws it into docs/ports.png.
#
# usage: benches/ports.sh [SECONDS] [SWITCH...]
#   SECONDS: length of each measurement (default 2). SWITCH: bridge sluice-tap sluice-af-packet sluice-af-xdp ovs ovs-tso ovs-af-xdp
#   (default: all).
#   ROUNDS: environment variable, how often each switch has its turn (default 3).
#   RESULTS: environment variable, a file that measurements are added to; those that it has already count as well. So a long run can
#   be made of short ones. PLOT: another file for the drawing.
#
# Everything happens in network namespaces that the script makes and removes. Needs root and the packages of xtask/setup.sh, and
# release builds of sluice and requests. Seven minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-2}
shift || true
switches=${*:-bridge sluice-tap sluice-af-packet sluice-af-xdp ovs ovs-tso ovs-af-xdp}
bin=$(realpath "${CARGO_TARGET_DIR:-target}/release")
tmp=$(mktemp -d /tmp/sluice-bench.XXXXXX)
results=${RESULTS:-$tmp/results}
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

# Words and not functions: what is started in the background is the program itself, and ends when it is to.
in_a="ip netns exec $a" in_b="ip netns exec $b"

reachable() {
    for _ in $(seq 50); do
        $1 ping -c 1 -W 1 10.0.0.2 >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "$0: 10.0.0.2 does not answer" >&2
    return 1
}

# What all CPUs have done so far, in hundredths of a second.
busy() { awk '/^cpu / {print $2 + $3 + $4 + $7 + $8; exit}' /proc/stat; }
# spent PROGRAM-NUMBER: CPU time of all threads of a program so far, in nanoseconds.
spent() { awk '{sum += $1} END {printf "%.0f", sum}' "/proc/$1/task/"*/schedstat; }

# measure NAME CLIENT SERVER [PROGRAM-NUMBER]: adds lines "NAME MEASURE VALUE" to the results. PROGRAM-NUMBER is the switch's.
measure() {
    local name=$1 client=$2 server=$3 program=${4:-} before after
    say() {
        [ -n "$2" ] || { echo "$0: $name has no figure for $1" >&2; return 1; }
        echo "$name $1 $2" >>"$results"
    }
    # iperf MEASURE FILTER ARGUMENT...: says what the filter makes of iperf3's report.
    iperf() {
        local measure=$1 filter=$2
        shift 2
        $client iperf3 --client 10.0.0.2 --time "$seconds" --json "$@" >"$tmp/iperf.json" || { cat "$tmp/iperf.json" >&2; return 1; }
        say "$measure" "$(jq "$filter" "$tmp/iperf.json")"
    }
    reachable "$client"
    $server iperf3 --server --port 5201 >/dev/null 2>&1 &
    pids+=($!)
    $server "$bin/requests" serve 10.0.0.2:7000 &
    pids+=($!)
    $server sockperf server -i 10.0.0.2 -p 11111 >/dev/null 2>&1 &
    pids+=($!)
    sleep 0.5
    before=$(busy)
    iperf tcp1 '.end.sum_received.bits_per_second / 1e9'
    after=$(busy)
    say cpu "$(jq "$((after - before)) * 10 / (.end.sum_received.bytes * 8 / 1e9)" "$tmp/iperf.json")"
    iperf tcp4 '.end.sum_received.bits_per_second / 1e9' --parallel 4
    iperf udp '(.end.sum.packets - .end.sum.lost_packets) / .end.sum.seconds / 1e3' --udp --bitrate 0 --length 64
    say connections "$($client "$bin/requests" connections 10.0.0.2:7000 "$seconds")"
    $client sockperf ping-pong -i 10.0.0.2 -p 11111 -t "$seconds" -m 64 2>/dev/null | sed 's/\x1b\[[0-9;]*m//g' >"$tmp/sockperf"
    say p50 "$(awk '/percentile 50.000/ {print $NF}' "$tmp/sockperf")"
    say p99 "$(awk '/percentile 99.000/ {print $NF}' "$tmp/sockperf")"
    say busy "$($client "$bin/requests" latency 10.0.0.2:7000 1 0 | cut -d' ' -f1)"
    say pause "$($client "$bin/requests" latency 10.0.0.2:7000 "$seconds" 20 | cut -d' ' -f1)"
    stop_started
    if [ -n "$program" ]; then
        before=$(spent "$program")
        sleep "$seconds"
        after=$(spent "$program")
        say idle "$(awk -v ns=$((after - before)) -v s="$seconds" 'BEGIN {print ns / s / 1e7}')"
    fi
    echo "round $round: $name" >&2
}

run_bridge() {
    hosts_up
    ip -n "$s" link add br0 type bridge
    ip -n "$s" link set br0 up
    ip -n "$s" link set va master br0
    ip -n "$s" link set vb master br0
    measure bridge "$in_a" "$in_b"
    hosts_down
}

in_h1="$bin/sluice lab exec --lab bench h1 --" in_h2="$bin/sluice lab exec --lab bench h2 --"

# lab NAME ATTACH: our switch, joined to the hosts by TAPs or by veth pairs with packet sockets.
lab() {
    "$bin/sluice" lab up --topo single,2 --name bench --attach "$2" >/dev/null
    measure "$1" "$in_h1" "$in_h2" "$("$bin/sluice" lab ls -o json | jq '.labs[] | select(.name == "bench").pid')"
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
    measure "$name" "$in_a" "$in_b" "$switchd"
    stop "$switchd" "$db"
    hosts_down
}
run_ovs() { ovs_bridge ovs system; }
run_ovs-tso() { ovs_bridge ovs-tso system userspace-tso-enable=true; }
run_ovs-af-xdp() { ovs_bridge ovs-af-xdp afxdp; }

for round in $(seq "${ROUNDS:-3}"); do
    for switch in $switches; do "run_$switch"; done
done

echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(date -I)," \
    "medians of $(awk '$2 == "tcp1" {print $1}' "$results" | sort | uniq -c | sort -n | awk '{print $1; exit}') rounds of $seconds s." \
    "In brackets: least and most; then the ratios to the kernel bridge and to the best Open vSwitch."
echo
awk '!seen[$1]++ {print $1}' "$results" >"$tmp/order"
# The awk of Debian sorts nothing: values come to it in order.
sort -k1,2 -k3,3g "$results" | awk -v folder="$tmp" -f benches/ports.awk "$tmp/order" -
gnuplot <<EOF
set terminal pngcairo size 1200,640 font ",10"
set output "${PLOT:-docs/ports.png}"
set multiplot layout 2,3
set style fill solid 0.9 noborder
set boxwidth 0.7
set grid ytics lc rgb "#dddddd"
set yrange [0:*]
set xtics rotate by 30 right noenhanced
unset key
do for [panel in "tcp1 tcp4 udp connections p50 cpu"] {
    set title system("head -1 $tmp/".panel)
    plot "$tmp/".panel using 0:2:3:4:(0.7):5:xtic(1) skip 1 with boxerrorbars lc rgb variable
}
EOF
