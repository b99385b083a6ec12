#!/usr/bin/env bash
# Speed of change: a file of flows added in one bundle over the control socket, the tables dumped, and the memory that
# they take, for Sluice and for Open vSwitch in one run. Prints a Markdown table with ratios to Open vSwitch.
#
# usage: benches/flows.sh [FLOWS] [RUNS]
#   FLOWS: number of flows (default 200000). RUNS: the best of so many runs counts (default 3).
#
# Open vSwitch runs on its dummy datapath, Sluice on a bridge without ports; everything is in a temporary folder and
# needs no privilege. Needs the packages of xtask/setup.sh and a release build of sluice and sluiced.
set -euo pipefail
cd "$(dirname "$0")/.."
flows=${1:-200000}
runs=${2:-3}
bin=${CARGO_TARGET_DIR:-target}/release
tmp=$(mktemp -d /tmp/sluice-flows.XXXXXX)
export OVS_RUNDIR=$tmp OVS_DBDIR=$tmp OVS_LOGDIR=$tmp OVS_SYSCONFDIR=$tmp
export PATH=$PATH:/usr/sbin:/sbin SLUICE_SOCKET=$tmp/sluice.sock
pids=()

cleanup() {
    set +e
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done
    rm -rf "$tmp"
}
trap cleanup EXIT

now() { date +%s.%N; }
wait_for() {
    for _ in $(seq 200); do [ -S "$1" ] && return 0 || sleep 0.05; done
    echo "$0: nothing listens on $1" >&2
    return 1
}
rss() { awk '/^VmRSS/ {print $2 * 1024}' "/proc/$1/status"; }

# seconds COMMAND...: what it takes, its output thrown away; says what went wrong if it fails.
seconds() {
    local start end
    start=$(now)
    "$@" >"$tmp/out" 2>"$tmp/err" || { cat "$tmp/err" >&2; return 1; }
    end=$(now)
    awk -v a="$start" -v b="$end" 'BEGIN {print b - a}'
}

# least NUMBER...: the smallest.
least() { printf '%s\n' "$@" | sort -g | head -1; }

# measure NAME PID ADD DUMP DELETE: appends "NAME add dump bytes-a-flow" to the results.
measure() {
    local name=$1 pid=$2 before after add=() dump=()
    before=$(rss "$pid")
    for run in $(seq "$runs"); do
        [ "$run" = 1 ] || $5 >/dev/null
        add+=("$(seconds $3)")
        [ "$run" = 1 ] && after=$(rss "$pid")
        dump+=("$(seconds $4)")
        [ "$(grep -c actions= "$tmp/out")" = "$flows" ] || { echo "$0: $name does not have $flows flows" >&2; return 1; }
    done
    echo "$name $(least "${add[@]}") $(least "${dump[@]}") $(((after - before) / flows))" >>"$tmp/results"
    echo "measured $name" >&2
}

# Flows as a policy has them: pairs of networks and ports, no two alike.
awk -v n="$flows" 'BEGIN {
    for (i = 0; i < n; i++)
        printf "table=%d,priority=%d,tcp,nw_src=10.%d.%d.0/24,nw_dst=172.16.%d.%d,tp_dst=%d actions=resubmit(,%d)\n",
            i % 4, 100 + i % 50, int(i / 256) % 256, i % 256, int(i / 65536), i % 251, 1024 + i % 5000, i % 4 + 1
}' >"$tmp/flows.txt"

printf '[bridges.br0]\nlocal_port = false\n' >"$tmp/sluiced.toml"
"$bin/sluiced" --config "$tmp/sluiced.toml" --socket "$SLUICE_SOCKET" --log error &
pids+=($!)
wait_for "$SLUICE_SOCKET"
"$bin/sluice" flows del --all >/dev/null
measure sluice $! "$bin/sluice flows add --file $tmp/flows.txt" "$bin/sluice flows dump -o ofctl" \
    "$bin/sluice flows del --all"

ovsdb-tool create "$tmp/conf.db" /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server "$tmp/conf.db" --remote="punix:$tmp/db.sock" --unixctl="$tmp/db.ctl" -vsyslog:off -vconsole:off &
pids+=($!)
wait_for "$tmp/db.sock"
ovs-vsctl --timeout=10 --db="unix:$tmp/db.sock" --no-wait init
ovs-vswitchd "unix:$tmp/db.sock" --enable-dummy=override --disable-system --disable-system-route \
    --unixctl="$tmp/vs.ctl" -vsyslog:off -vconsole:off &
switchd=$!
pids+=($switchd)
ovs-vsctl --timeout=10 --db="unix:$tmp/db.sock" add-br br0 -- set bridge br0 datapath_type=dummy fail_mode=secure
wait_for "$tmp/br0.mgmt"
br0=unix:$tmp/br0.mgmt
measure ovs $switchd "ovs-ofctl -O OpenFlow14 --bundle add-flows $br0 $tmp/flows.txt" "ovs-ofctl dump-flows $br0" \
    "ovs-ofctl del-flows $br0"

echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), $(date -I), $flows flows," \
    "best of $runs runs. In brackets: ratio to Open vSwitch."
echo
sort -k1,1 "$tmp/results" | awk -v n="$flows" '
NR == 1 {
    split($0, base)
    print "| switch | added in one bundle | dumped | memory a flow |"
    print "|---|---|---|---|"
}
{
    printf "| %s | %.0f flows/s (%.2fx) | %.2f s (%.2fx) | %d B (%.2fx) |\n", $1, n / $2, base[2] / $2, $3, $3 / base[3],
        $4, $4 / base[4]
}'
