#!/usr/bin/env bash
# The network of a real Kubernetes cluster of two nodes (tests/cluster), several networks one after the other in one run: TCP with 1
# and 4 streams, request/response over TCP, and CPU, between Pods on a node, across nodes, and through a ClusterIP across nodes.
# Prints a Markdown table with each figure's ratio to the first network's on the same way.
#
# usage: benches/cluster.sh [SECONDS] [NETWORK...]
#   SECONDS: length of each measurement (default 3). NETWORK, by default all, in this order:
#     bridge         the plain network of tests/cluster: a kernel bridge, routes between the nodes, kube-proxy with nftables
#     kernel-vxlan   the same with the kernel's VXLAN between the nodes
#     sluice-no-encap, sluice-geneve, sluice-vxlan
#   SLUICE_KUBE_IMAGE: environment variable, the image's archive; without it `cargo xtask image` makes one, which takes minutes.
#
# CPU is what both CPUs of the machine did meanwhile, less what they do when nothing is measured, for each gigabit of one TCP
# stream. Everything happens in the namespaces of the clusters, which go with the script. Needs root, Go and the packages of
# xtask/setup.sh; eight minutes with 3 seconds each.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-3}
shift || true
networks=${*:-bridge kernel-vxlan sluice-no-encap sluice-geneve sluice-vxlan}
tmp=$(mktemp -d /tmp/sluice-bench.XXXXXX)
export SLUICE_CLUSTER=bench$$
cluster=tests/cluster/cluster
ways=("on a node" "across nodes" "by a Service, across")

cleanup() {
    set +e
    "$cluster" down
    rm -rf "$tmp"
}
trap cleanup EXIT

kubectl() { "$cluster" kubectl "$@"; }
quietly() { "$@" >"$tmp/said" 2>&1 || { cat "$tmp/said" >&2; return 1; }; }

image=${SLUICE_KUBE_IMAGE:-}
case " $networks " in *" sluice-"*)
    if [ -z "$image" ]; then
        image=$tmp/sluice.tar
        quietly cargo xtask image --output "$image"
    fi
    ;;
esac

# vxlan_up: a VXLAN between the nodes in the place of the routes, as networks of Pods have it: each node's end has the first
# address of its Pods' network, and is known to the others beforehand.
vxlan_up() {
    local node other n m cidr
    for node in node-1 node-2; do
        n=${node#node-}
        cidr=$(kubectl get node "$node" --output 'jsonpath={.spec.podCIDR}')
        "$cluster" node "$node" ip link add pods type vxlan id 7 dstport 4789 local "172.30.0.1$n" nolearning
        "$cluster" node "$node" ip link set pods address "02:00:00:00:00:0$n" up
        "$cluster" node "$node" ip address add "${cidr%/*}/32" dev pods
    done
    for node in node-1 node-2; do
        n=${node#node-} m=$((3 - ${node#node-}))
        other=node-$m
        cidr=$(kubectl get node "$other" --output 'jsonpath={.spec.podCIDR}')
        "$cluster" node "$node" bridge fdb append "02:00:00:00:00:0$m" dev pods dst "172.30.0.1$m"
        "$cluster" node "$node" ip neighbour add "${cidr%/*}" lladdr "02:00:00:00:00:0$m" dev pods nud permanent
        "$cluster" node "$node" ip route replace "$cidr" via "${cidr%/*}" dev pods onlink
        # Pods' interfaces leave room for its headers.
        "$cluster" node "$node" sh -c 'f=/etc/cni/net.d/10-bridge.conflist
            jq ".plugins[0].mtu = 1450" "$f" >"$f.new" && mv "$f.new" "$f"'
    done
}

# install MODE [TUNNEL]: Sluice, as a user installs it.
install() {
    local overlay=$tmp/overlay
    quietly "$cluster" load "$image"
    mkdir -p "$overlay"
    {
        cat deploy/overlays/dev/node.toml
        echo "mode = \"$1\""
        [ -z "${2:-}" ] || echo "tunnel = \"$2\""
    } >"$overlay/node.toml"
    cat >"$overlay/kustomization.yaml" <<K
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: sluice-system
resources: [$(realpath --relative-to "$overlay" deploy/overlays/dev)]
configMapGenerator:
  - {name: sluice, behavior: merge, files: [node.toml]}
K
    quietly kubectl apply -k "$overlay"
    quietly kubectl -n sluice-system rollout status daemonset/sluice --timeout=120s
    quietly kubectl wait --for=condition=Ready node --all --timeout=120s
}

network_up() {
    case $1 in
    bridge) quietly "$cluster" up --nodes 2 --cni bridge --proxy ;;
    kernel-vxlan)
        quietly "$cluster" up --nodes 2 --cni bridge --proxy
        vxlan_up
        ;;
    sluice-*)
        quietly "$cluster" up --nodes 2
        case $1 in
        sluice-no-encap) install no-encap ;;
        *) install encap "${1#sluice-}" ;;
        esac
        ;;
    *) echo "$0: unknown network $1" >&2 && exit 2 ;;
    esac
}

# pod NAME NODE COMMAND: one that serves or waits.
pod() {
    cat <<P
apiVersion: v1
kind: Pod
metadata: {name: $1, labels: {app: $1}}
spec:
  nodeName: $2
  terminationGracePeriodSeconds: 0
  containers:
    - name: tools
      image: localhost/toolbox:1
      imagePullPolicy: IfNotPresent
      command: [sh, -c, "$3"]
---
P
}
pods_up() {
    local serve='iperf3 --server & exec sockperf server --tcp -i 0.0.0.0 -p 11111'
    {
        pod client node-1 'exec sleep 1000000'
        pod near node-1 "$serve"
        pod far node-2 "$serve"
        cat <<S
apiVersion: v1
kind: Service
metadata: {name: far}
spec:
  selector: {app: far}
  ports: [{name: stream, port: 5201}, {name: request, port: 11111}]
S
    } >"$tmp/pods.yaml"
    quietly kubectl apply --filename "$tmp/pods.yaml"
    quietly kubectl wait --for=condition=Ready pod --all --timeout=120s
    near=$(kubectl get pod near --output 'jsonpath={.status.podIP}')
    far=$(kubectl get pod far --output 'jsonpath={.status.podIP}')
    service=$(kubectl get service far --output 'jsonpath={.spec.clusterIP}')
}

client() { kubectl exec client -- "$@"; }

# What the CPUs have done so far, in hundredths of a second.
busy() { awk '/^cpu / {print $2 + $3 + $4 + $7 + $8; exit}' /proc/stat; }

# stream ADDRESS ARGUMENT...: sets `rate`, in Gb/s; again while the server is not there yet.
stream() {
    local address=$1
    shift
    for _ in $(seq 20); do
        client iperf3 --client "$address" --time "$seconds" --json "$@" >"$tmp/iperf.json" 2>/dev/null || true
        rate=$(jq '.end.sum_received.bits_per_second // 0 | . / 1e9' "$tmp/iperf.json" 2>/dev/null || echo 0)
        [ "$rate" = 0 ] || return 0
        sleep 1
    done
    cat "$tmp/iperf.json" >&2
    return 1
}

# requests ADDRESS: prints the median and the 99th percentile of a request and its answer, in microseconds.
requests() {
    for _ in $(seq 20); do
        # It tells half of a round trip.
        client sockperf ping-pong --tcp -i "$1" -p 11111 -t "$seconds" -m 64 2>/dev/null |
            sed 's/\x1b\[[0-9;]*m//g' |
            awk '/percentile 50.000/ {p50 = $NF} /percentile 99.000/ {p99 = $NF} END {print 2 * p50, 2 * p99}' >"$tmp/requests" || true
        [ "$(cat "$tmp/requests")" = "0 0" ] || break
        sleep 1
    done
    cat "$tmp/requests"
}

measure() { # measure NETWORK WAY ADDRESS
    local network=$1 way=$2 address=$3 before idle tcp1 tcp4 cpu rate
    seconds=1 stream "$address"
    before=$(busy)
    sleep "$seconds"
    idle=$(($(busy) - before))
    before=$(busy)
    stream "$address"
    cpu=$(($(busy) - before - idle))
    tcp1=$rate
    stream "$address" --parallel 4
    tcp4=$rate
    echo "$network;$way;$tcp1;$tcp4;$(requests "$address" | tr ' ' ';');$(jq -n "$cpu * 10 / ($tcp1 * $seconds)")" >>"$tmp/results"
}

for network in $networks; do
    network_up "$network"
    pods_up
    measure "$network" "${ways[0]}" "$near"
    measure "$network" "${ways[1]}" "$far"
    measure "$network" "${ways[2]}" "$service"
    quietly "$cluster" down
    echo "measured $network" >&2
done

echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(date -I)," \
    "$seconds s each, load $(cut -d' ' -f1 /proc/loadavg). In brackets: ratio to the first network on the same way."
echo
for way in "${ways[@]}"; do grep -F ";$way;" "$tmp/results"; done | awk -F ';' '
function cell(value, base, unit) { return sprintf("%.1f %s (%.2fx)", value, unit, base > 0 ? value / base : 0) }
NR == 1 {
    print "| way | network | TCP, 1 stream | TCP, 4 streams | request p50 | request p99 | CPU for TCP, 1 stream |"
    print "|---|---|---|---|---|---|---|"
}
$2 != way { way = $2; for (i = 3; i <= 7; i++) base[i] = $i }
{
    printf "| %s | %s | %s | %s | %s | %s | %s |\n", $2, $1, cell($3, base[3], "Gb/s"), cell($4, base[4], "Gb/s"),
        cell($5, base[5], "us"), cell($6, base[6], "us"), cell($7, base[7], "ms/Gb")
}'
