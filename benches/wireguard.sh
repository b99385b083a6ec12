#!/usr/bin/env bash
# Two hosts, each with a switch, joined by a veth pair: TCP with 1 and 4 streams and request/response latency between
# them, encrypted by wireguard-go, encrypted by our switches, in VXLAN, and as plain frames, all in one run. Prints a
# Markdown table with each figure's ratio to the first row.
#
# usage: benches/wireguard.sh [SECONDS] [WAY...]
#   WAY: wireguard-go sluice-wireguard sluice-vxlan sluice-plain (default: all)
#
# Everything happens in network namespaces that the script makes and removes. Needs root and the packages of
# xtask/setup.sh, and a release build of sluiced.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-4}
shift || true
ways=${*:-wireguard-go sluice-wireguard sluice-vxlan sluice-plain}
bin=${CARGO_TARGET_DIR:-target}/release
tmp=$(mktemp -d /tmp/sluice-bench.XXXXXX)
mtu=1420
pids=()

stop() { kill "$@" 2>/dev/null && wait "$@" 2>/dev/null || true; }
stop_started() {
    local pid
    for pid in "${pids[@]}"; do stop "$pid"; done
    pids=()
}
ns() { echo "sw$$-$1"; }
in_ns() {
    local n=$1
    shift
    ip netns exec "$(ns "$n")" "$@"
}
hosts_down() { for n in 1 2; do ip netns del "$(ns $n)" 2>/dev/null || true; done; }
cleanup() {
    set +e
    stop_started
    hosts_down
    rm -rf "$tmp"
}
trap cleanup EXIT

# Two hosts, joined by under0 with 192.0.2.N and by plain0 without addresses.
hosts_up() {
    local n
    for n in 1 2; do
        ip netns add "$(ns $n)"
        in_ns $n ip link set lo up
    done
    ip -n "$(ns 1)" link add under0 type veth peer name under0 netns "$(ns 2)"
    ip -n "$(ns 1)" link add plain0 type veth peer name plain0 netns "$(ns 2)"
    for n in 1 2; do
        in_ns $n ip addr add 192.0.2.$n/24 dev under0
        in_ns $n ip link set under0 up
        in_ns $n ip link set plain0 mtu $mtu up
    done
}

# measure NAME: appends "NAME tcp1 tcp4 p50 p99" to the results.
measure() {
    local name=$1 tcp1 tcp4 latency answered=no
    for _ in $(seq 50); do
        in_ns 1 ping -c 1 -W 1 10.0.0.2 >/dev/null 2>&1 && answered=yes && break
        sleep 0.1
    done
    [ $answered = yes ] || { echo "$0: $name: 10.0.0.2 does not answer" >&2; return 1; }
    in_ns 2 iperf3 --server --port 5201 >/dev/null 2>&1 &
    local server=$!
    sleep 0.5
    tcp1=$(in_ns 1 iperf3 -c 10.0.0.2 -t "$seconds" -J | jq '.end.sum_received.bits_per_second / 1e9')
    tcp4=$(in_ns 1 iperf3 -c 10.0.0.2 -t "$seconds" -P 4 -J | jq '.end.sum_received.bits_per_second / 1e9')
    stop "$server"
    in_ns 2 sockperf server -i 10.0.0.2 -p 11111 >/dev/null 2>&1 &
    server=$!
    sleep 0.5
    latency=$(in_ns 1 sockperf ping-pong -i 10.0.0.2 -p 11111 -t "$seconds" -m 64 2>/dev/null |
        sed 's/\x1b\[[0-9;]*m//g' |
        awk '/percentile 50.000/ {p50 = $NF} /percentile 99.000/ {p99 = $NF} END {print p50 + 0, p99 + 0}')
    stop "$server"
    stop_started
    echo "$name $tcp1 $tcp4 $latency" >>"$tmp/results"
    echo "measured $name" >&2
}

keys() {
    for n in 1 2; do
        (umask 077 && wg genkey >"$tmp/key$n")
        wg pubkey <"$tmp/key$n" >"$tmp/pub$n"
    done
}

run_wireguard-go() {
    local n far
    hosts_up
    keys
    for n in 1 2; do
        far=$((3 - n))
        # What a killed one leaves would be taken for this one's.
        rm -f "/var/run/wireguard/swg$n.sock"
        in_ns $n wireguard-go -f "swg$n" >/dev/null 2>&1 &
        pids+=($!)
        for _ in $(seq 50); do [ -S "/var/run/wireguard/swg$n.sock" ] && break || sleep 0.1; done
        in_ns $n wg set "swg$n" listen-port 51820 private-key "$tmp/key$n" peer "$(cat "$tmp/pub$far")" \
            allowed-ips 10.0.0.$far/32 endpoint 192.0.2.$far:51820
        in_ns $n ip addr add 10.0.0.$n/24 dev "swg$n"
        in_ns $n ip link set "swg$n" mtu $mtu up
    done
    measure wireguard-go
    hosts_down
}

# sluice NAME: our switches, joined by the port `out` that the function port_NAME describes.
sluice() {
    local n far
    hosts_up
    keys
    for n in 1 2; do
        far=$((3 - n))
        {
            echo "[bridges.br0]"
            echo "local_port = false"
            echo "flows = ['in_port=out,actions=mod_dl_dst:02:00:00:00:00:0$n,output:tap0', 'in_port=tap0,actions=output:out']"
            echo "[bridges.br0.ports.tap0]"
            echo "type = 'tap'"
            echo "options = { mac = '02:00:00:00:00:0$n', mtu = $mtu }"
            echo "[bridges.br0.ports.out]"
            "port_$1" $n $far
        } >"$tmp/$n.toml"
        rm -f "$tmp/$n.sock"
        in_ns $n "$bin/sluiced" --config "$tmp/$n.toml" --socket "$tmp/$n.sock" 2>"$tmp/$n.log" &
        pids+=($!)
        for _ in $(seq 50); do [ -S "$tmp/$n.sock" ] && break || sleep 0.1; done
        in_ns $n ip addr add 10.0.0.$n/24 dev tap0
        in_ns $n ip neigh add 10.0.0.$far lladdr 02:00:00:00:00:0$far dev tap0
    done
    measure "sluice-$1"
    hosts_down
}
port_wireguard() {
    echo "type = 'wireguard'"
    echo "options = { private_key_file = '$tmp/key$1', peer.far = { public_key = '$(cat "$tmp/pub$2")'," \
        "endpoint = '192.0.2.$2:51820', allowed_ips = ['10.0.0.$2'] } }"
}
port_vxlan() {
    echo "type = 'vxlan'"
    echo "options = { remote_ip = '192.0.2.$2', key = 7 }"
}
port_plain() {
    echo "type = 'af-packet'"
    echo "options = { dev = 'plain0' }"
}
run_sluice-wireguard() { sluice wireguard; }
run_sluice-vxlan() { sluice vxlan; }
run_sluice-plain() { sluice plain; }

for way in $ways; do "run_$way"; done

echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(date -I)," \
    "$seconds s each, MTU $mtu inside. In brackets: ratio to the first row."
echo
awk '
function cell(value, base, unit) { return sprintf("%.2f %s (%.2fx)", value, unit, base > 0 ? value / base : 0) }
NR == 1 {
    split($0, base)
    print "| way | TCP, 1 stream | TCP, 4 streams | latency p50 | p99 |"
    print "|---|---|---|---|---|"
}
{
    printf "| %s | %s | %s | %s | %s |\n", $1, cell($2, base[2], "Gb/s"), cell($3, base[3], "Gb/s"),
        cell($4, base[4], "us"), cell($5, base[5], "us")
}' "$tmp/results"
