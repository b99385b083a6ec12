#!/usr/bin/env bash
# The data path alone, on one core: a capture file replayed from memory through flows into a null port, by Sluice
# (`sluice bench replay`) and by Open vSwitch's user-space data path with DPDK, in turn and several times. Prints a
# Markdown table of medians with ratios to Open vSwitch.
#
# usage: benches/replay.sh [ROUNDS] [SECONDS] [FLOWS...]
#   ROUNDS: times that each is measured (default 3). SECONDS: of each measurement (default 4). FLOWS: files of
#   benches/flows without `.flows`, or rulesN for N policy rules in a pipeline (default: l2 rules1000 conntrack).
#   RESULTS: environment variable, a file that measurements are added to; those that it has already count as well. So a long run can
#   be made of short ones.
#
# Both are told by packets a second of the time that the forwarding thread was on its CPU, and by cycles of the
# time-stamp counter in that time: others who use the CPU do not count, though they leave their traces in its caches.
#
# Open vSwitch with DPDK comes from Debian's packages, unpacked into the build folder and not installed; it runs in a
# temporary folder. Needs root, 3 GB of memory for huge pages, given back at the end, the packages of xtask/setup.sh, and
# release builds of sluice and replay-input.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
seconds=${2:-4}
shift $(($# < 2 ? $# : 2))
tables=${*:-l2 rules1000 conntrack}
target=${CARGO_TARGET_DIR:-target}
bin=$target/release
dpdk=$(realpath -m "$target/ovs-dpdk")
tmp=$(mktemp -d /tmp/sluice-replay.XXXXXX)
results=${RESULTS:-$tmp/results}
cpu=$(($(nproc) - 1))
lib=usr/lib/$(uname -m)-linux-gnu
export OVS_RUNDIR=$tmp OVS_DBDIR=$tmp OVS_LOGDIR=$tmp OVS_SYSCONFDIR=$tmp RUNTIME_DIRECTORY=$tmp
export PATH=$PATH:/usr/sbin:/sbin
pids=()
pages=$(cat /proc/sys/vm/nr_hugepages)

stop_started() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    pids=()
}
cleanup() {
    set +e
    stop_started
    mountpoint -q "$tmp/huge" && umount "$tmp/huge"
    echo "$pages" >/proc/sys/vm/nr_hugepages
    rm -rf "$tmp"
}
trap cleanup EXIT

wait_for() {
    for _ in $(seq 200); do [ -S "$1" ] && return 0 || sleep 0.05; done
    echo "$0: nothing listens on $1" >&2
    return 1
}

# Unpacks Open vSwitch with DPDK and what it needs beyond the packages installed.
unpack_ovs() {
    [ -x "$dpdk/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk" ] && return
    mkdir -p "$tmp/debs/partial" "$dpdk"
    local get="apt-get -qq -y --no-install-recommends -o Dir::Cache::archives=$tmp/debs --download-only install"
    local packages="openvswitch-switch-dpdk librte-net-pcap23 librte-net-null23 librte-mempool-ring23"
    $get $packages >/dev/null || { apt-get -qq update && $get $packages >/dev/null; }
    for deb in "$tmp"/debs/*.deb; do dpkg-deb -x "$deb" "$dpdk"; done
}

# start_ovs PCAP FLOWS: port 1 replays, port 2 discards. Sets `switchd`.
start_ovs() {
    local vsctl="ovs-vsctl --timeout=120 --db=unix:$tmp/db.sock" set pmds=$dpdk/$lib/dpdk
    rm -f "$tmp"/conf.db "$tmp"/*.sock
    ovsdb-tool create "$tmp/conf.db" /usr/share/openvswitch/vswitch.ovsschema
    ovsdb-server "$tmp/conf.db" --remote="punix:$tmp/db.sock" --unixctl="$tmp/db.ctl" -vsyslog:off -vconsole:off &
    pids+=($!)
    wait_for "$tmp/db.sock"
    $vsctl --no-wait init
    set="set Open_vSwitch . other_config:dpdk-init=true other_config:dpdk-lcore-mask=0x1 other_config:per-port-memory=true"
    $vsctl --no-wait $set "other_config:pmd-cpu-mask=$(printf '0x%x' $((1 << cpu)))" \
        "other_config:dpdk-extra=--no-pci --iova-mode=va --huge-dir $tmp/huge -d $(echo "$pmds"/pmds-*)"
    # In a network namespace of its own: its bridges are TAP devices that outlive it.
    LD_LIBRARY_PATH=$dpdk/$lib unshare --net "$dpdk/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk" "unix:$tmp/db.sock" \
        --unixctl="$tmp/vs.ctl" --log-file="$tmp/vs.log" -vsyslog:off -vconsole:off >/dev/null 2>&1 &
    switchd=$!
    pids+=("$switchd")
    wait_for "$tmp/vs.ctl"
    $vsctl add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure
    $vsctl add-port br0 p1 -- set interface p1 ofport_request=1 type=dpdk \
        "options:dpdk-devargs=net_pcap1,rx_pcap=$1,infinite_rx=1"
    $vsctl add-port br0 p2 -- set interface p2 ofport_request=2 type=dpdk "options:dpdk-devargs=net_null2,no-rx=1"
    wait_for "$tmp/br0.mgmt"
    ovs-ofctl -O OpenFlow14 add-flows "unix:$tmp/br0.mgmt" "$2"
}

sent_by_ovs() { ovs-ofctl -O OpenFlow14 dump-ports "unix:$tmp/br0.mgmt" 2 | sed -n 's/.*tx pkts=\([0-9]*\).*/\1/p'; }
# Nanoseconds that the polling thread has been on its CPU.
ovs_cpu_time() {
    local task
    for task in "/proc/$switchd/task"/*; do
        case $(cat "$task/comm") in pmd-*) awk '{print $1}' "$task/schedstat" ;; esac
    done
}

# run_ovs TABLE FLOWS: appends "ovs TABLE FLOWS Mpps cycles" to the results.
run_ovs() {
    local from to before after
    start_ovs "$tmp/$2.pcap" "$tmp/$1.flows"
    sleep 3
    from=$(sent_by_ovs) before=$(ovs_cpu_time)
    sleep "$seconds"
    to=$(sent_by_ovs) after=$(ovs_cpu_time)
    stop_started
    [ -n "$before" ] && [ "$to" -gt "$from" ] || { echo "$0: Open vSwitch forwards nothing:" >&2; tail "$tmp/vs.log" >&2; return 1; }
    awk -v n=$((to - from)) -v t=$((after - before)) -v hz="$tsc_hz" -v name="ovs $1 $2" \
        'BEGIN {print name, n / t * 1e3, hz * t / 1e9 / n}' >>"$results"
}

# run_sluice TABLE FLOWS: appends "sluice TABLE FLOWS Mpps cycles" to the results, and sets the counter's speed.
run_sluice() {
    local said
    said=$("$bin/sluice" bench replay --pcap "$tmp/$2.pcap" --flows "$tmp/$1.flows" --seconds "$seconds" \
        --warmup 2 --cpu "$cpu" -o json)
    tsc_hz=$(jq .tsc_hz <<<"$said")
    jq -r --arg name "sluice $1 $2" '"\($name) \(.packets_per_cpu_second / 1e6) \(.cycles_per_packet)"' <<<"$said" \
        >>"$results"
}

unpack_ovs
mkdir "$tmp/huge"
[ "$pages" -ge 1400 ] || echo 1400 >/proc/sys/vm/nr_hugepages
mount -t hugetlbfs none "$tmp/huge"
for count in 1 100 10000; do "$bin/replay-input" frames $count "$tmp/$count.pcap"; done
for table in $tables; do
    case $table in
    rules*) "$bin/replay-input" rules "${table#rules}" "$tmp/$table.flows" ;;
    *) cp "benches/flows/$table.flows" "$tmp/" ;;
    esac
done
for round in $(seq "$rounds"); do
    for table in $tables; do
        for count in 1 100 10000; do
            run_sluice "$table" $count
            run_ovs "$table" $count
            echo "round $round: $table, $count flows" >&2
        done
    done
done

echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(date -I)," \
    "medians of $(awk '{print $1, $2, $3}' "$results" | sort | uniq -c | sort -n | awk '{print $1; exit}') rounds of $seconds s; in" \
    "brackets: least and most."
echo
sort -k1,3 -k4,4g "$results" | awk '
{ key = $2 " " $3; n[$1, key]++; rate[$1, key, n[$1, key]] = $4; cycles[$1, key, n[$1, key]] = $5; keys[key] = 1 }
function median(of, name, key,    count, half) {
    count = n[name, key]; half = int((count + 1) / 2)
    return count % 2 ? of[name, key, half] : (of[name, key, half] + of[name, key, half + 1]) / 2
}
function told(name, key,    last) {
    last = n[name, key]
    return sprintf("%.1f Mpps (%.1f to %.1f), %.0f cycles", median(rate, name, key), rate[name, key, 1], rate[name, key, last], \
        median(cycles, name, key))
}
END {
    print "| flows | in the traffic | sluice | ovs-dpdk | ratio |"
    print "|---|---|---|---|---|"
    for (key in keys) {
        split(key, part, " ")
        printf "| %s | %d | %s | %s | %.2fx |\n", part[1], part[2], told("sluice", key), told("ovs", key),
            median(rate, "sluice", key) / median(rate, "ovs", key) | "sort -t\"|\" -k2,2 -k3,3n"
    }
}'
