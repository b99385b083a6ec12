#!/usr/bin/env bash
# Containers on our switch by veth pair and by TAP, beside a kernel bridge made by the reference plugins `bridge` and
# `host-local`, all in one run: traffic between two containers, what a restart and a crash of the switch leave of them, and
# how long ADD, CHECK and DEL take with many containers there. Prints Markdown tables.
#
# usage: benches/containers.sh [SECONDS] [PART...]
#   SECONDS: length of each measurement of traffic (default 4). PART: traffic, survival, latency (default: all).
#   KINDS: environment variable, which networks (default "bridge sluice-veth sluice-tap"); ratios are to the first.
#   PODS: environment variable, at how many containers latency is measured (default "0 100 1000").
#   ROUNDS: environment variable, how many ADD, CHECK and DEL there are for one figure, the median (default 21).
#
# Everything happens in a mount namespace with its own /run and in network namespaces, which go with the script. Needs root,
# the packages of xtask/setup.sh, containernetworking-plugins and iptables, and a release build of sluice and sluice-cni.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${SLUICE_BENCH_MOUNTS:-}" ]; then
    SLUICE_BENCH_MOUNTS=1 exec unshare --mount --propagation private -- "$0" "$@"
fi
mount -t tmpfs none /run
seconds=${1:-4}
shift || true
parts=${*:-traffic survival latency}
pods=${PODS:-0 100 1000}
rounds=${ROUNDS:-21}
bin=$(realpath "${CARGO_TARGET_DIR:-target}/release")
export PATH=$PATH:/usr/sbin:/sbin CNI_PATH=/usr/lib/cni:$bin
tmp=$(mktemp -d /tmp/sluice-containers.XXXXXX)
export SLUICE_SOCKET=$tmp/switch.sock
kinds=${KINDS:-bridge sluice-veth sluice-tap}
pids=()
switch=

stop() { kill "$@" 2>/dev/null && wait "$@" 2>/dev/null || true; }
cleanup() {
    set +e
    for pid in "${pids[@]}" $switch; do stop "$pid"; done
    rm -rf "$tmp"
}
trap cleanup EXIT

# configure KIND: writes the network's configuration and says which plugin it is for.
configure() {
    local ranges='"ranges": [[{"subnet": "10.200.0.0/16"}]]'
    local common='"cniVersion": "1.0.0", "name": "bench", "bridge": "br0", "isGateway": true, "isDefaultGateway": true, "ipMasq": true'
    case $1 in
    bridge)
        plugin=/usr/lib/cni/bridge
        echo "{$common, \"type\": \"bridge\", \"ipam\": {\"type\": \"host-local\", \"dataDir\": \"$tmp/host-local\", $ranges}}"
        ;;
    sluice-*)
        plugin=$bin/sluice-cni
        echo "{$common, \"type\": \"sluice-cni\", \"device\": \"${1#sluice-}\", \"socket\": \"$SLUICE_SOCKET\"," \
            "\"dataDir\": \"$tmp/data\", \"ipam\": {$ranges}}"
        ;;
    esac >"$tmp/conf.json"
}

# cni COMMAND ID NETNS [CONFIGURATION]: one call in the calling shell's network namespace.
cni() {
    CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_NETNS=/run/netns/$3 CNI_IFNAME=eth0 \
        "$plugin" <"${4:-$tmp/conf.json}" >"$tmp/result.json" || { cat "$tmp/result.json" >&2; return 1; }
}

switch_up() {
    ip netns exec host "$bin/sluiced" --socket "$SLUICE_SOCKET" --state /run/switch.state 2>>"$tmp/switch.log" &
    switch=$!
    for _ in $(seq 200); do "$bin/sluice" status >/dev/null 2>&1 && return 0 || sleep 0.02; done
    cat "$tmp/switch.log" >&2
    return 1
}

# host_up KIND: a host, with the switch if it is ours.
host_up() {
    ip netns add host
    ip -n host link set lo up
    case $1 in sluice-*) switch_up ;; esac
    configure "$1"
}
host_down() {
    [ -z "$switch" ] || stop "$switch"
    switch=
    ip netns del host
    rm -rf /run/switch.state "$tmp/data" "$tmp/host-local"
}

# pair_up: containers a and b on the host; sets `there` to b's address.
pair_up() {
    local ns
    for ns in a b; do
        ip netns add $ns
        export plugin tmp
        export -f cni
        ip netns exec host bash -c "cni ADD $ns $ns"
    done
    there=$(ip -n b -j addr show dev eth0 | jq -r '.[0].addr_info[] | select(.family == "inet").local')
    for _ in $(seq 50); do
        ip netns exec a ping -c 1 -W 1 "$there" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "$0: $there does not answer" >&2
    return 1
}
pair_down() {
    local ns
    for ns in a b; do
        ip netns exec host bash -c "cni DEL $ns $ns"
        ip netns del $ns
    done
}

in_a() { ip netns exec a "$@"; }

# client ARGUMENT...: iperf3 to b, as JSON; again if it lost its own control connection, which a flood may do.
client() {
    for _ in 1 2 3; do
        in_a iperf3 -c "$there" -t "$seconds" -J "$@" >"$tmp/iperf.json" || true
        if jq -e '.end.sum // .end.sum_received' "$tmp/iperf.json" >/dev/null; then break; fi
        sleep 1
    done
    cat "$tmp/iperf.json"
}
server() {
    ip netns exec b "$@" >/dev/null 2>&1 &
    pids+=($!)
    sleep 0.5
}
servers_down() {
    for pid in "${pids[@]}"; do stop "$pid"; done
    pids=()
}

# CPU time of the switch so far, in hundredths of a second.
switch_time() { if [ -n "$switch" ]; then awk '{print $14 + $15}' "/proc/$switch/stat"; else echo 0; fi; }

run_traffic() {
    local kind=$1 before after tcp1 cpu tcp4 udp latency
    server iperf3 --server --port 5201
    before=$(switch_time)
    client >"$tmp/tcp1.json"
    after=$(switch_time)
    tcp1=$(jq '.end.sum_received.bits_per_second / 1e9' "$tmp/tcp1.json")
    cpu=$(jq --argjson s "$((after - before))" --argjson t "$seconds" \
        '(.end.cpu_utilization_percent | .host_total + .remote_total) / 100 + $s / 100 / $t' "$tmp/tcp1.json")
    tcp4=$(client -P 4 | jq '.end.sum_received.bits_per_second / 1e9')
    udp=$(client -u -b 0 -l 64 |
        jq '(.end.sum.packets - .end.sum.lost_packets) / .end.sum.seconds / 1e3')
    servers_down
    server sockperf server -i "$there" -p 11111
    latency=$(in_a sockperf ping-pong -i "$there" -p 11111 -t "$seconds" -m 64 2>/dev/null |
        sed 's/\x1b\[[0-9;]*m//g' | awk '/percentile 50.000/ {p50 = $NF} END {print p50 + 0}')
    servers_down
    echo "$kind $tcp1 $tcp4 $udp $latency $(jq -n "$cpu / $tcp1 * 1000")" >>"$tmp/traffic"
}

# What a container has: flags of its interface, addresses, routes.
flags() { ip -n "$1" -j link show dev eth0 | jq -c '.[0].flags | map(select(. == "UP" or . == "LOWER_UP"))'; }
rest() {
    ip -n "$1" -j addr show dev eth0 | jq -c '[.[0].address, .[0].mtu, (.[0].addr_info[] | .local)]'
    ip -n "$1" -j route show | jq -c '[.[] | [.dst, .gateway]]'
}

# end_switch SIGNAL: has the switch end while a connection runs, looks at the container, and starts it again.
end_switch() {
    local kind=$1 signal=$2 before link kept stall alive
    before=$(rest a; rest b)
    server iperf3 --server --port 5201
    in_a iperf3 -c "$there" -t 8 -i 0.1 -b 50M -J >"$tmp/connection.json" &
    local sender=$!
    sleep 2
    kill "-$signal" "$switch"
    wait "$switch" 2>/dev/null || true
    link=$(flags a)
    kept=no
    [ "$before" != "$(rest a; rest b)" ] || kept=yes
    switch_up
    [ "$before" = "$(rest a; rest b)" ] || kept=no
    alive=no
    wait "$sender" && alive=yes
    servers_down
    stall=$(jq '[.intervals[] | select(.sum.bytes == 0)] | length / 10' "$tmp/connection.json")
    [ "$(jq '.intervals[-1].sum.bytes > 0' "$tmp/connection.json")" = true ] || alive=no
    case $link in *LOWER_UP*) link=up ;; *) link="no carrier" ;; esac
    echo "$kind;SIG$signal;$link;$kept;$alive;$stall s" >>"$tmp/survival"
}
run_survival() {
    [ "$1" != bridge ] || return 0
    end_switch "$1" TERM
    end_switch "$1" KILL
}

# In the host's namespace: appends "ADD CHECK DEL" in microseconds for each round.
probe() {
    local round start added checked end
    for round in $(seq "$rounds"); do
        start=${EPOCHREALTIME/[.,]/}
        cni ADD "probe$round" probe
        added=${EPOCHREALTIME/[.,]/}
        jq --slurpfile result "$tmp/result.json" '. + {prevResult: $result[0]}' "$tmp/conf.json" >"$tmp/check.json"
        checked=${EPOCHREALTIME/[.,]/}
        cni CHECK "probe$round" probe "$tmp/check.json"
        end=${EPOCHREALTIME/[.,]/}
        cni DEL "probe$round" probe "$tmp/check.json"
        echo "$((added - start)) $((end - checked)) $((${EPOCHREALTIME/[.,]/} - end))"
    done
}
fill() { for n in $(seq "$1" "$2"); do cni ADD "pod$n" "pod$n"; done; }
empty() { for n in $(seq "$1"); do cni DEL "pod$n" "pod$n"; done; }

median() { awk -v c="$1" '{print $c / 1000}' "$tmp/rounds" | sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

run_latency() {
    local kind=$1 count=0 wanted
    export rounds plugin tmp
    export -f cni probe fill empty
    for wanted in $pods; do
        ip netns exec host bash -ec "fill $((count + 1)) $wanted"
        count=$wanted
        ip netns exec host bash -ec probe >"$tmp/rounds"
        echo "$kind $wanted $(median 1) $(median 2) $(median 3)" >>"$tmp/latency"
    done
    ip netns exec host bash -ec "empty $count"
}

most=$(printf '%s\n' $pods | sort -n | tail -1)
case " $parts " in *" latency "*)
    for n in $(seq "$most"); do ip netns add "pod$n"; done
    ip netns add probe
    ;;
esac
for kind in $kinds; do
    host_up "$kind"
    case " $parts " in *" traffic "* | *" survival "*)
        pair_up
        case " $parts " in *" traffic "*) run_traffic "$kind" ;; esac
        case " $parts " in *" survival "*) run_survival "$kind" ;; esac
        pair_down
        ;;
    esac
    case " $parts " in *" latency "*) run_latency "$kind" ;; esac
    host_down
    echo "measured $kind" >&2
done

echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(date -I)," \
    "$seconds s each. In brackets: ratio to the first row."
cell='function cell(value, base, unit) { return sprintf("%.1f %s (%.2fx)", value, unit, base > 0 ? value / base : 0) }'
if [ -f "$tmp/traffic" ]; then
    echo
    awk "$cell"'
    NR == 1 {
        split($0, first)
        print "| containers on | TCP 1 stream | TCP 4 streams | UDP 64 B | latency p50 | CPU for TCP, 1 stream |"
        print "|---|---|---|---|---|---|"
    }
    {
        printf "| %s | %s | %s | %s | %s | %s |\n", $1, cell($2, first[2], "Gb/s"), cell($3, first[3], "Gb/s"),
            cell($4, first[4], "kpps"), cell($5, first[5], "us"), cell($6, first[6], "ms/Gb")
    }' "$tmp/traffic"
fi
if [ -f "$tmp/survival" ]; then
    echo
    awk -F';' '
    NR == 1 {
        print "| containers on | the switch gets | link meanwhile | addresses and routes stay | TCP goes on | without data for |"
        print "|---|---|---|---|---|---|"
    }
    { printf "| %s | %s | %s | %s | %s | %s |\n", $1, $2, $3, $4, $5, $6 }' "$tmp/survival"
fi
if [ -f "$tmp/latency" ]; then
    echo
    awk "$cell"'
    $1 == "bridge" { for (i = 3; i <= 5; i++) base[$2, i] = $i }
    NR == 1 {
        print "| plugin | containers there | ADD | CHECK | DEL |"
        print "|---|---|---|---|---|"
    }
    {
        printf "| %s | %d | %s | %s | %s |\n", $1, $2, cell($3, base[$2, 3], "ms"), cell($4, base[$2, 4], "ms"),
            cell($5, base[$2, 5], "ms")
    }' "$tmp/latency"
fi
