#!/usr/bin/env bash
# Labs beside Mininet: one switch with 2, 10 and 50 hosts, as `sluice lab up` makes it and as Mininet makes it with Open vSwitch's
# user-space datapath, in turn and several times over: how soon it is up and gone, memory, all pairs' pings, TCP between two hosts,
# what it needs of the machine and what a kill leaves behind. Then a leaf-spine network of 50 nodes, which Mininet has not: up, pings,
# a link that flaps under them, and the supervisor killed. Prints Markdown.
#
# usage: benches/lab.sh [SECONDS]
#   SECONDS: length of each stream of TCP (default 3). ROUNDS: environment variable, how often each has its turn (default 3).
#
# Each measurement runs in a box: a PID, mount and network namespace of its own, with its own /tmp and /run, because Mininet's way of
# cleaning up kills and removes whatever looks like its own on the whole machine. Needs root, the packages of xtask/setup.sh, and a
# release build of sluice. Two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(realpath "${CARGO_TARGET_DIR:-target}/release")

# How long a command takes, which may print what it likes: timed NAME COMMAND...
timed() {
    local name=$1 begin
    shift
    begin=$(date +%s.%N)
    "$@" >/dev/null
    awk -v name="$name" -v begin="$begin" -v end="$(date +%s.%N)" 'BEGIN {print name, end - begin}'
}

# Puts the folders of all processes into `processes`, but not of this shell and of those that only wait to be reaped.
look() {
    local process state
    processes=()
    for process in /proc/[0-9]*; do
        case ${process#/proc/} in $$ | $BASHPID) continue ;; esac
        read -r state <"$process/stat" 2>/dev/null || continue
        case ${state##*) } in Z*) ;; *) processes+=("$process") ;; esac
    done
}

# What they take, in MiB; what they share counts once.
memory() {
    look
    awk '/^Pss:/ {sum += $2} END {print "memory", sum / 1024}' "${processes[@]/%//smaps_rollup}"
}

# How many there are, and interfaces besides the loopback device.
left() {
    local interfaces
    interfaces=$(ip -oneline link | grep -cv ': lo:' || true)
    look
    echo "interfaces $interfaces"
    echo "processes ${#processes[@]}"
}

# The pings of all pairs in a lab. That some are lost is a result too.
pings() {
    local begin
    begin=$(date +%s.%N)
    "$bin/sluice" lab ping -o json >/tmp/pings || [ $? = 1 ]
    awk -v begin="$begin" -v end="$(date +%s.%N)" 'BEGIN {print "ping", end - begin}'
    jq -r '"pairs \(.reachable)"' /tmp/pings
}

# --- What runs in a box.

inside_sluice() {
    local hosts=$1 seconds=$2
    export SLUICE_RUNTIME_DIR=/tmp/run
    timed up "$bin/sluice" lab up --topo "single,$hosts" --name bench
    memory
    [ "$hosts" -gt 10 ] || pings
    if [ "$seconds" != 0 ]; then
        "$bin/sluice" lab exec h2 -- iperf3 -s -1 >/dev/null &
        sleep 0.5
        "$bin/sluice" lab exec h1 -- iperf3 -c 10.0.0.2 -t "$seconds" --json | jq -r '"tcp \(.end.sum_received.bits_per_second / 1e9)"'
    fi
    timed down "$bin/sluice" lab down
}

inside_mininet() {
    ovs
    /usr/bin/python3 benches/lab.py "$1" "$2" "$(date +%s.%N)"
}

inside_killed_sluice() {
    export SLUICE_RUNTIME_DIR=/tmp/run
    "$bin/sluice" lab up --topo single,10 --name bench >/dev/null
    kill -9 "$("$bin/sluice" lab ls -o json | jq '.labs[0].pid')"
    "$bin/sluice" lab gc >/dev/null
    left
}

inside_killed_mininet() {
    local before after pid
    ovs
    before=$(left)
    /usr/bin/python3 benches/lab.py 10 stay "$(date +%s.%N)" >/tmp/up 2>/dev/null &
    pid=$!
    for _ in $(seq 100); do grep -q up /tmp/up && break || sleep 0.1; done
    kill -9 $pid
    wait $pid 2>/dev/null || true
    sleep 1
    after=$(left)
    # Without what was there before: Open vSwitch.
    paste -d ' ' <(echo "$after") <(echo "$before") | awk '{print $1, $2 - $4}'
}

# 24 leaves with a host each, and two spines.
inside_leafspine() {
    local lost
    export SLUICE_RUNTIME_DIR=/tmp/run
    timed up "$bin/sluice" lab up --topo leafspine,2,24 --name bench
    pings
    "$bin/sluice" lab link flap leaf1-spine1 --times 5 --every 300ms >/dev/null &
    lost=$("$bin/sluice" lab exec h1 -- ping -q -i 0.01 -c 300 10.0.24.2 | awk '/received/ {print $1 - $4}')
    echo "flap $lost"
    wait
    kill -9 "$("$bin/sluice" lab ls -o json | jq '.labs[0].pid')"
    timed gc "$bin/sluice" lab gc
    left
}

# Open vSwitch, where Mininet looks for it.
ovs() {
    mount -t tmpfs tmpfs /etc/openvswitch
    mount -t tmpfs tmpfs /var/log/openvswitch
    mkdir -p /run/openvswitch
    ovsdb-tool create /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
    ovsdb-server --remote=punix:/run/openvswitch/db.sock --pidfile --detach --log-file --verbose=console:off
    ovs-vsctl --no-wait init
    ovs-vswitchd --pidfile --detach --log-file --verbose=console:off
}

if [ "${1:-}" = inside ]; then
    mount -t tmpfs tmpfs /tmp
    mount -t tmpfs tmpfs /run
    ip link set lo up
    "inside_$2" "${@:3}"
    exit
fi

# --- Outside of them.

seconds=${1:-3}
results=$(mktemp /tmp/sluice-bench.XXXXXX)
trap 'rm -f "$results" "$results.log"' EXIT

# boxed NAME TOOL FUNCTION [ARGUMENT...]: what it prints goes to the results, as "NAME TOOL MEASURE VALUE".
boxed() {
    local name=$1 tool=$2 line
    shift 2
    timeout 200 unshare --pid --mount --net --fork --kill-child --mount-proc --propagation private bash benches/lab.sh inside "$@" \
        2>"$results.log" | while read -r line; do echo "$name $tool $line" >>"$results"; done || { cat "$results.log" >&2; return 1; }
}

for round in $(seq "${ROUNDS:-3}"); do
    for hosts in 2 10 50; do
        stream=0
        [ $hosts != 2 ] || stream=$seconds
        boxed $hosts sluice sluice $hosts "$stream"
        boxed $hosts mininet mininet $hosts "$stream"
        echo "round $round: $hosts hosts" >&2
    done
    boxed killed sluice killed_sluice
    boxed killed mininet killed_mininet
    boxed leafspine sluice leafspine
    echo "round $round: kills, leaf-spine" >&2
done

# median NAME TOOL MEASURE
median() { awk -v n="$1" -v t="$2" -v m="$3" '$1 == n && $2 == t && $3 == m {print $4}' "$results" | sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
# row TITLE NAME MEASURE UNIT BETTER: both, and how many times better sluice is; BETTER is less or more.
row() {
    awk -v title="$1" -v a="$(median "$2" sluice "$3")" -v b="$(median "$2" mininet "$3")" -v unit="$4" -v better="$5" 'BEGIN {
        ratio = better == "less" ? b / a : a / b
        printf "| %s | %.3g %s | %.3g %s | %.2g |\n", title, a, unit, b, unit, ratio
    }'
}
may() { if "$@" >/dev/null 2>&1; then echo "an ordinary user"; else echo "root"; fi; }
user="setpriv --reuid 65534 --regid 65534 --clear-groups"
tried=$(mktemp -d /tmp/sluice-bench.XXXXXX)
chmod 755 "$tried"
install -m 755 "$bin/sluice" "$tried/sluice"
install -d -o 65534 "$tried/run"
sluice_needs=$(may $user env SLUICE_RUNTIME_DIR="$tried/run" "$tried/sluice" lab up --topo single,2 --name bench)
$user env SLUICE_RUNTIME_DIR="$tried/run" "$tried/sluice" lab down bench >/dev/null 2>&1 || true
rm -rf "$tried"
mininet_needs=$(may unshare --pid --mount --net --fork --kill-child --mount-proc $user mn --test none)

echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(date -I)," \
    "medians of ${ROUNDS:-3} rounds; Mininet $(mn --version 2>&1), Open vSwitch $(ovs-vswitchd --version | awk '{print $NF; exit}')."
echo
echo "| | sluice | Mininet | times better |"
echo "|---|---|---|---|"
for hosts in 2 10 50; do
    row "$hosts hosts: up" $hosts up s less
    row "$hosts hosts: memory" $hosts memory MiB less
    # Mininet's pings go one after the other: two minutes for 50 hosts.
    [ $hosts -gt 10 ] || row "$hosts hosts: all pairs ping" $hosts ping s less
    row "$hosts hosts: down" $hosts down s less
done
row "TCP, one stream" 2 tcp Gb/s more
echo "| needs | $sluice_needs | $mininet_needs | |"
for what in processes interfaces; do
    echo "| $what left by kill -9, 10 hosts | $(median killed sluice $what) | $(median killed mininet $what) | |"
done
echo
echo "A leaf-spine network of 50 nodes (24 hosts, 24 leaves, 2 spines): up in $(median leafspine sluice up | xargs printf %.2f) s; right" \
    "after that $(median leafspine sluice pairs) of 552 pairs answer each other's pings in $(median leafspine sluice ping | xargs printf %.2f) s. While a" \
    "link flaps five times in 3 s, $(median leafspine sluice flap) of 300 pings across it are lost. After kill -9 of the supervisor," \
    "$(median leafspine sluice processes) processes and $(median leafspine sluice interfaces) interfaces are left."
