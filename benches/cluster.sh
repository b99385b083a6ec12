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
#   POLICIES: environment variable, how many NetworkPolicies about the Pods that answer there are while Sluice's networks are measured
#     (default "0", as always with the others; else two at least, and they only become more: "0 100 5000")
#   SLUICE_KUBE_IMAGE: environment variable, the image's archive; without it `cargo xtask image` makes one, which takes minutes.
#
# CPU is what both CPUs of the machine did meanwhile, less what they do when nothing is measured, for each gigabit of one TCP
# stream. Everything happens in the namespaces of the clusters, which go with the script. Needs root, Go and the packages of
# xtask/setup.sh; eight minutes with 3 seconds each and no policies.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-3}
sizes=${POLICIES:-0}
shift || true
networks=${*:-bridge kernel-vxlan sluice-no-encap sluice-geneve sluice-vxlan}
# shellcheck source=benches/cluster-lib.sh
. benches/cluster-lib.sh
ways=("on a node" "across nodes" "by a Service, across")

case " $networks " in *" sluice-"*) image_made ;; esac

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

# overlay MODE [TUNNEL]: writes the one that installs Sluice that way; prints where.
overlay() {
    local overlay=$tmp/overlay
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
    echo "$overlay"
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
        sluice-no-encap) install "$(overlay no-encap)" ;;
        *) install "$(overlay encap "${1#sluice-}")" ;;
        esac
        ;;
    *) echo "$0: unknown network $1" >&2 && exit 2 ;;
    esac
}

pods_up() {
    {
        pod client node-1 "$waits"
        pod near node-1 "$serves"
        pod far node-2 "$serves"
        cat <<S
apiVersion: v1
kind: Service
metadata: {name: far}
spec:
  selector: {app: far}
  ports: [{name: stream, port: 5201}, {name: request, port: 11111}]
S
    } >"$tmp/pods.yaml"
    pods_ready
    near=$(address_of near)
    far=$(address_of far)
    service=$(kubectl get service far --output 'jsonpath={.spec.clusterIP}')
}

# What the CPUs have done so far, in hundredths of a second.
busy() { awk '/^cpu / {print $2 + $3 + $4 + $7 + $8; exit}' /proc/stat; }

# filled COUNT: so many policies are there, and in force on both nodes. The last of them lets requests in: once they get through, all
# that was written before it is in force, since events come in order.
filled() {
    local address
    [ "$made" -lt 2 ] || write DELETE "$policies/last" >/dev/null
    fill $(($1 - 1)) "$(labelled near far)" '{"port":5201}'
    write POST "$policies" "$(policy last "$(labelled near far)" "$(from_client '{"port":11111}')")" >/dev/null
    for address in "$near" "$far"; do
        for _ in $(seq 300); do
            ! client nc -w 1 "$address" 11111 -e true 2>/dev/null || continue 2
        done
        fail "the policies do not come into force"
    done
}

measure() { # measure NETWORK WAY ADDRESS
    local network=$1 way=$2 address=$3 before idle tcp1 tcp4 cpu rate
    stream "$address" 1
    before=$(busy)
    sleep "$seconds"
    idle=$(($(busy) - before))
    before=$(busy)
    stream "$address" "$seconds"
    cpu=$(($(busy) - before - idle))
    tcp1=$rate
    stream "$address" "$seconds" --parallel 4
    tcp4=$rate
    echo "$network;$way;$tcp1;$tcp4;$(requests "$address" "$seconds" | tr ' ' ';');$(jq -n "$cpu * 10 / ($tcp1 * $seconds)")" >>"$tmp/results"
}

for network in $networks; do
    network_up "$network"
    pods_up
    case $network in
    sluice-*) counts=$sizes ;;
    *) counts=0 ;;
    esac
    if [ "$counts" != 0 ]; then api_up; fi
    for count in $counts; do
        name=$network
        if [ "$counts" != 0 ]; then name="$network, $count policies"; fi
        if [ "$count" != 0 ]; then filled "$count"; fi
        measure "$name" "${ways[0]}" "$near"
        measure "$name" "${ways[1]}" "$far"
        measure "$name" "${ways[2]}" "$service"
        echo "measured $name" >&2
    done
    network_down
done

machine "$seconds s each, load $(load). In brackets: ratio to the first network on the same way."
for way in "${ways[@]}"; do grep -F ";$way;" "$tmp/results"; done | awk -F ';' "$cells"'
NR == 1 {
    print "| way | network | TCP, 1 stream | TCP, 4 streams | request p50 | request p99 | CPU for TCP, 1 stream |"
    print "|---|---|---|---|---|---|---|"
}
$2 != way { way = $2; for (i = 3; i <= 7; i++) base[i] = $i }
{
    printf "| %s | %s | %s | %s | %s | %s | %s |\n", $2, $1, cell($3, base[3], "Gb/s"), cell($4, base[4], "Gb/s"),
        cell($5, base[5], "us"), cell($6, base[6], "us"), cell($7, base[7], "ms/Gb")
}'
