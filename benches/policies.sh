#!/usr/bin/env bash
# How soon a NetworkPolicy is in force for packets, with few and with many of them on the node, and what they cost TCP: on a real
# cluster of one node, where the node role looks itself, and where the cluster role tells it. The time is that from before the policy is
# written to the API server until a client in a Pod, which makes one connection after the other, gets through (or, when it is deleted,
# gets through no more). Prints Markdown tables.
#
# usage: benches/policies.sh [CHANGES] [SIZE...]
#   CHANGES: how often the policy comes and goes for each row (default 25). SIZE: policies that are there, which do not change, all
#   about Pods of the node (default 1 250 5000); they only become more.
#   ROLES: environment variable (default "node cluster"); ratios are to the first.
#   SECONDS_EACH: environment variable, length of each measurement of traffic (default 3); 0 for none.
#   SLUICE_KUBE_IMAGE: environment variable, the image's archive; without it `cargo xtask image` makes one, which takes minutes.
#
# One policy isolates all Pods for ingress; each of the others, which is about the server, allows one port from one network and from Pods
# that are not there, so that the server's packets are looked up among all of them. Traffic is measured with the flows that the first
# role has made, and once before without any policy. Needs root, Go, the packages of xtask/setup.sh, and `cargo build -p sluice-benches
# --bin service-probe`; ten minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
changes=${1:-25}
shift || true
sizes=${*:-1 250 5000}
roles=${ROLES:-node cluster}
each=${SECONDS_EACH:-3}
# shellcheck source=benches/cluster-lib.sh
. benches/cluster-lib.sh
probe_built
image_made

cluster_up() {
    quietly "$cluster" up --nodes 1
    case $1 in
    node) install deploy/overlays/dev ;;
    cluster)
        install deploy/overlays/dev-cluster
        quietly kubectl -n sluice-system rollout status deployment/sluice-cluster --timeout=120s
        for _ in $(seq 60); do
            told=$(kubectl -n sluice-system logs daemonset/sluice -c node | grep -c "policies are told by the cluster role" || true)
            [ "$told" = 0 ] || break
            sleep 1
        done
        [ "$told" != 0 ] || fail "the cluster role tells nothing"
        ;;
    *) fail "unknown role $1" ;;
    esac
    api_up
    { pod client node-1 "$waits"; pod server node-1 "$serves"; } >"$tmp/pods.yaml"
    pods_ready
    server=$(address_of server)
}
# The ends of the connections by which changes are seen: there while nothing else is measured.
probes_up() {
    in_pod server "$probe" serve 2>/dev/null &
    in_pod client "$probe" watch "$server:8001" 16 50 >"$tmp/seen" 2>/dev/null &
    await - 0 60
}
probes_down() {
    local pid
    for pid in $("$cluster" node node-1 pgrep -x service-probe); do "$cluster" node node-1 kill "$pid"; done
}

# allow SECONDS, deny SECONDS: the policy comes, and goes; sets `took`, in microseconds.
allow() {
    local begin body
    body=$(policy probe "$(labelled server)" "$(from_client '{"port":8001}')")
    begin=${EPOCHREALTIME/[.,]/}
    write POST "$policies" "$body" >/dev/null
    await a "$begin" "$1" || return 1
    took=$((seen - begin))
}
deny() {
    local begin
    begin=${EPOCHREALTIME/[.,]/}
    write DELETE "$policies/probe" >/dev/null
    await - "$begin" "$1" || return 1
    took=$((seen - begin))
}

row() { # row ROLE POLICIES
    local before after settled
    # Events come in order: once a later change is in force, all is.
    allow 600
    settled=$took
    deny 60
    : >"$tmp/allowed"
    : >"$tmp/denied"
    # shellcheck disable=SC2046
    before=$(spent $(programs))
    for _ in $(seq "$changes"); do
        sleep "0.$((RANDOM % 9))"
        allow 120
        echo "$took" >>"$tmp/allowed"
        sleep "0.$((RANDOM % 9))"
        deny 120
        echo "$took" >>"$tmp/denied"
    done
    # shellcheck disable=SC2046
    after=$(spent $(programs))
    echo "$2;$1;$(percentiles "$tmp/allowed");$(percentiles "$tmp/denied");$(((after - before) / changes / 2));$(jq -n "$settled / 1e6");$(memory)" \
        >>"$tmp/results"
}
# All of Sluice on node-1: with the cluster role, its controller is there beside that of the node.
programs() { "$cluster" node node-1 pgrep -x 'sluiced|sluice-controll'; }
node_role() { "$cluster" node node-1 pgrep -o -f 'sluice-controller node'; }
memory() { echo "sluiced $(resident "$(program sluiced)"), node role $(resident "$(node_role)")"; }

traffic() { # traffic POLICIES
    local tcp1 rate
    stream "$server" "$each"
    tcp1=$rate
    stream "$server" "$each" --parallel 4
    echo "$1;$tcp1;$rate;$(requests "$server" "$each" | tr ' ' ';')" >>"$tmp/traffic"
}

for role in $roles; do
    cluster_up "$role"
    is_first=$([ "$role" = "${roles%% *}" ] && [ "$each" != 0 ] && echo yes || echo no)
    if [ $is_first = yes ]; then traffic 0; fi
    for size in $sizes; do
        fill "$size" "$(labelled server)" '{"port":5201},{"port":11111}'
        probes_up
        row "$role" "$size"
        probes_down
        if [ $is_first = yes ]; then traffic "$size"; fi
        echo "measured $role $size" >&2
    done
    network_down
done

machine "$changes changes a row each way, $each s of traffic each, load $(load). In brackets: ratio to the first role with as many" \
    "policies; of traffic, to none."
for size in $sizes; do grep "^$size;" "$tmp/results"; done | awk -F ';' "$cells"'
NR == 1 {
    print "| policies | told by | allowed p50 | allowed p99 | denied p50 | denied p99 | CPU a change | in force after all were written | memory |"
    print "|---|---|---|---|---|---|---|---|---|"
}
$1 != size { size = $1; for (i = 3; i <= 8; i++) base[i] = $i }
{
    printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", $1, $2 == "node" ? "the node itself" : "the cluster role",
        cell($3, base[3], "ms"), cell($4, base[4], "ms"), cell($5, base[5], "ms"), cell($6, base[6], "ms"),
        cell($7, base[7], "ms"), cell($8, base[8], "s"), $9
}'
if [ -e "$tmp/traffic" ]; then
    echo
    awk -F ';' "$cells"'
    NR == 1 {
        print "| policies | TCP, 1 stream | TCP, 4 streams | request p50 | request p99 |"
        print "|---|---|---|---|---|"
        for (i = 2; i <= 5; i++) base[i] = $i
    }
    {
        printf "| %s | %s | %s | %s | %s |\n", $1, cell($2, base[2], "Gb/s"), cell($3, base[3], "Gb/s"), cell($4, base[4], "us"),
            cell($5, base[5], "us")
    }' "$tmp/traffic"
fi
