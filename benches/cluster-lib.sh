# What the runs on clusters of tests/cluster have in common: benches/cluster.sh, services.sh and policies.sh source it, from the
# repository's root, with `set -euo pipefail`. It makes a folder for the run, `tmp`, and takes cluster and folder away at the end.
# shellcheck shell=bash
tmp=$(mktemp -d /tmp/sluice-bench.XXXXXX)
export SLUICE_CLUSTER=bench$$
cluster=tests/cluster/cluster
folder=${TMPDIR:-/tmp}/sluice-cluster-$SLUICE_CLUSTER
# The ends of connections that tell when something has changed; `probe_built` looks whether it is there.
probe=${CARGO_TARGET_DIR:-target}/debug/service-probe

cleanup() {
    set +e
    "$cluster" down
    wait
    rm -rf "$tmp"
}
trap cleanup EXIT

kubectl() { "$cluster" kubectl "$@"; }
quietly() { "$@" >"$tmp/said" 2>&1 || { cat "$tmp/said" >&2; return 1; }; }
fail() { echo "$0: $*" >&2; exit 1; }
probe_built() { probe=$(realpath "$probe") && [ -x "$probe" ] || fail "build it first: cargo build -p sluice-benches --bin service-probe"; }

# image_made: sets `image`, the archive that SLUICE_KUBE_IMAGE names, or a new one, which takes minutes.
image_made() {
    image=${SLUICE_KUBE_IMAGE:-}
    if [ -z "$image" ]; then
        image=$tmp/sluice.tar
        quietly cargo xtask image --output "$image"
    fi
}
# install OVERLAY: Sluice, as a user installs it.
install() {
    quietly "$cluster" load "$image"
    quietly kubectl apply -k "$1"
    quietly kubectl -n sluice-system rollout status daemonset/sluice --timeout=120s
    quietly kubectl wait --for=condition=Ready node --all --timeout=120s
}

# api_up: the API without TLS and names, for curl, on the socket $tmp/api; it ends with the cluster.
api_up() {
    "$cluster" node control "$folder/programs/kube" kubectl proxy --unix-socket="$tmp/api" >/dev/null 2>&1 &
    for _ in $(seq 100); do [ -S "$tmp/api" ] && break || sleep 0.1; done
}
network_down() {
    quietly "$cluster" down
    wait
    rm -f "$tmp/api"
    made=0
}
write() { # write POST|PUT|DELETE URL [OBJECT]
    curl --silent --show-error --fail --unix-socket "$tmp/api" --request "$1" --header 'Content-Type: application/json' \
        --data "${3:-}" "$2"
}

# Where NetworkPolicies are, and how many `fill` has made in this cluster.
policies=http://localhost/apis/networking.k8s.io/v1/namespaces/default/networkpolicies
made=0
# policy NAME PODS RULE
policy() {
    echo "{\"apiVersion\":\"networking.k8s.io/v1\",\"kind\":\"NetworkPolicy\",\"metadata\":{\"name\":\"$1\"}," \
        "\"spec\":{\"podSelector\":$2,\"policyTypes\":[\"Ingress\"],\"ingress\":[$3]}}"
}
# labelled APP...: selects Pods made by `pod` with these names.
labelled() {
    local apps
    printf -v apps '"%s",' "$@"
    echo "{\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"In\",\"values\":[${apps%,}]}]}"
}
from_client() { echo "{\"from\":[{\"podSelector\":$(labelled client)}],\"ports\":[$1]}"; }

# fill COUNT PODS PORTS: makes what is not there yet of so many policies. One isolates all Pods for ingress and allows the client's to
# PORTS; each of the others, which is about PODS, allows one port from one network and from Pods that are not there, so that packets
# to PODS are looked up among all of them.
fill() {
    local n one body
    one=$(policy @NAME "$2" '{"from":[{"ipBlock":{"cidr":"@NET"}},{"podSelector":{"matchLabels":{"app":"@NAME"}}}],"ports":[{"port":@PORT}]}')
    for ((n = made; n < $1; n++)); do
        # Without processes, of which there would be thousands.
        body=${one//@NAME/p$n}
        body=${body/@NET/10.$((n / 250 + 100)).$((n % 250)).0\/24}
        body=${body/@PORT/$((12000 + n % 500))}
        [ "$n" != 0 ] || body=$(policy everybody '{}' "$(from_client "$3")")
        printf 'next\nsilent\nshow-error\nfail\nunix-socket = "%s"\noutput = /dev/null\nrequest = POST\n' "$tmp/api"
        printf 'header = "Content-Type: application/json"\nurl = "%s"\ndata = "%s"\n' "$policies" "${body//\"/\\\"}"
    done >"$tmp/policies"
    if [ "$1" -gt "$made" ]; then
        quietly curl --parallel --parallel-max 20 --config "$tmp/policies"
        made=$1
    fi
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
# What Pods do that wait, and that `stream` and `requests` ask.
waits='exec sleep 1000000'
serves='iperf3 --server & exec sockperf server --tcp -i 0.0.0.0 -p 11111'
# pods_ready: makes those of $tmp/pods.yaml.
pods_ready() {
    quietly kubectl apply --filename "$tmp/pods.yaml"
    quietly kubectl wait --for=condition=Ready pod --all --timeout=120s
}
address_of() { kubectl get pod "$1" --output 'jsonpath={.status.podIP}'; }
# in_pod NAME WORDS...: a program of this machine in the network of a Pod of node-1, until the cluster goes.
in_pod() {
    local ip
    ip=$(address_of "$1")
    shift
    # shellcheck disable=SC2016
    "$cluster" node node-1 bash -c 'for file in /run/netns/*; do
        if ip -n "${file##*/}" address 2>/dev/null | grep -qF " $0/"; then exec ip netns exec "${file##*/}" "$@"; fi
    done; exit 1' "$ip" "$@"
}

# client WORDS...: in the Pod of that name.
client() { kubectl exec client -- "$@"; }
# stream ADDRESS SECONDS ARGUMENT...: sets `rate`, in Gb/s; again while the server is not there yet.
stream() {
    local address=$1 seconds=$2
    shift 2
    for _ in $(seq 20); do
        client iperf3 --client "$address" --time "$seconds" --json "$@" >"$tmp/iperf.json" 2>/dev/null || true
        rate=$(jq '.end.sum_received.bits_per_second // 0 | . / 1e9' "$tmp/iperf.json" 2>/dev/null || echo 0)
        [ "$rate" = 0 ] || return 0
        sleep 1
    done
    cat "$tmp/iperf.json" >&2
    return 1
}
# requests ADDRESS SECONDS: prints the median and the 99th percentile of a request and its answer, in microseconds.
requests() {
    for _ in $(seq 20); do
        # It tells half of a round trip.
        client sockperf ping-pong --tcp -i "$1" -p 11111 -t "$2" -m 64 2>/dev/null |
            sed 's/\x1b\[[0-9;]*m//g' |
            awk '/percentile 50.000/ {p50 = $NF} /percentile 99.000/ {p99 = $NF} END {print 2 * p50, 2 * p99}' >"$tmp/requests" || true
        [ "$(cat "$tmp/requests")" = "0 0" ] || break
        sleep 1
    done
    cat "$tmp/requests"
}

# await LETTER SINCE SECONDS: until the client, which writes $tmp/seen by `service-probe watch`, has got that answer after SINCE;
# sets `seen` to when, in microseconds.
await() {
    local end=$((SECONDS + $3))
    until seen=$(awk -v letter="$1" -v since="$2" '$2 == letter && $1 > since {print $1; exit}' "$tmp/seen") && [ -n "$seen" ]; do
        if [ "$SECONDS" -ge "$end" ]; then
            echo "$0: the client does not get the answer $1 in $3 s" >&2
            return 1
        fi
        sleep 0.02
    done
}

# program NAME: the number of a program on node-1; the kernel keeps fifteen characters of a name.
program() { "$cluster" node node-1 pgrep -o -x "${1:0:15}"; }
# spent PROGRAM-NUMBER...: CPU time of programs of node-1 so far, with what they started, in milliseconds.
spent() {
    local pid sum=0
    for pid; do
        sum=$((sum + $("$cluster" node node-1 cat "/proc/$pid/stat" | sed 's/.*) //' | awk '{print ($12 + $13 + $14 + $15) * 10}')))
    done
    echo $sum
}
# resident PROGRAM-NUMBER: what it has in memory, in words.
resident() { "$cluster" node node-1 awk '/^VmRSS/ {printf "%.0f MB", $2 / 1024}' "/proc/$1/status"; }
# percentiles FILE: the median and the 99th percentile of times in microseconds, in milliseconds, with `;` between them.
percentiles() { sort -n "$1" | awk '{v[NR] = $1 / 1000} END {printf "%.1f;%.1f", v[int((NR + 1) / 2)], v[int(NR * 0.99 + 0.999)]}'; }

# machine WORDS: what figures were made on.
machine() {
    echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(date -I), $*"
    echo
}
load() { cut -d' ' -f1 /proc/loadavg; }
# What the cells of tables are made of; for awk.
cells='function cell(value, base, unit) { return sprintf("%.1f %s (%.2fx)", value, unit, base > 0 ? value / base : 0) }'
