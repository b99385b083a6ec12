#!/usr/bin/env bash
# How soon a change of a Service is in force, with few and with many Services there, beside kube-proxy with nftables, in one run:
# the time from before an EndpointSlice is written to the API server until a client in a Pod, which makes one connection after the
# other, gets to the new endpoint. Then how soon that is when what programs the node is killed at the same time. Prints Markdown tables.
#
# usage: benches/services.sh [CHANGES] [SIZE...]
#   CHANGES: how many there are for each row (default 50). SIZE: SERVICESxENDPOINTS that are there, which do not change
#   (default 10x1 10x10 1000x1 1000x10 10000x1 10000x10); Services only become more.
#   NETWORKS: environment variable (default "kube-proxy sluice"); ratios are to the first.
#   SLUICE_KUBE_IMAGE: environment variable, the image's archive; without it `cargo xtask image` makes one, which takes minutes.
#
# Both run on a cluster of tests/cluster with one node, which has Pods for client and server alone; EndpointSlices are written by
# hand. kube-proxy makes changes at most once a second unless it is told otherwise, so there are more than that between two. Needs root,
# Go, the packages of xtask/setup.sh, and `cargo build -p sluice-benches --bin service-probe`; half an hour.
set -euo pipefail
cd "$(dirname "$0")/.."
changes=${1:-50}
shift || true
sizes=${*:-10x1 10x10 1000x1 1000x10 10000x1 10000x10}
networks=${NETWORKS:-kube-proxy sluice}
probe=$(realpath "${CARGO_TARGET_DIR:-target}/debug/service-probe")
tmp=$(mktemp -d /tmp/sluice-bench.XXXXXX)
export SLUICE_CLUSTER=bench$$
cluster=tests/cluster/cluster
address=10.96.255.1
folder=${TMPDIR:-/tmp}/sluice-cluster-$SLUICE_CLUSTER

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

image=${SLUICE_KUBE_IMAGE:-}
case " $networks " in *" sluice "*)
    if [ -z "$image" ]; then
        image=$tmp/sluice.tar
        quietly cargo xtask image --output "$image"
    fi
    ;;
esac

network_up() {
    case $1 in
    kube-proxy) quietly "$cluster" up --nodes 1 --cni bridge --proxy ;;
    sluice)
        quietly "$cluster" up --nodes 1
        quietly "$cluster" load "$image"
        quietly kubectl apply -k deploy/overlays/dev
        quietly kubectl -n sluice-system rollout status daemonset/sluice --timeout=120s
        quietly kubectl wait --for=condition=Ready node --all --timeout=120s
        ;;
    *) fail "unknown network $1" ;;
    esac
    # The API without TLS and names, for curl.
    "$cluster" node control "$folder/programs/kube" kubectl proxy --unix-socket="$tmp/api" >/dev/null 2>&1 &
    for _ in $(seq 100); do [ -S "$tmp/api" ] && break || sleep 0.1; done
    made=0
}
network_down() {
    quietly "$cluster" down
    wait
    rm -f "$tmp/api"
}

pod() {
    cat <<P
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: tools, image: "localhost/toolbox:1", imagePullPolicy: IfNotPresent}]
---
P
}
# in_pod NAME WORDS...: a program of this machine in the Pod's network, until the cluster goes.
in_pod() {
    local ip
    ip=$(kubectl get pod "$1" --output 'jsonpath={.status.podIP}')
    shift
    # shellcheck disable=SC2016
    "$cluster" node node-1 bash -c 'for file in /run/netns/*; do
        if ip -n "${file##*/}" address 2>/dev/null | grep -qF " $0/"; then exec ip netns exec "${file##*/}" "$@"; fi
    done; exit 1' "$ip" "$@"
}
pods_up() {
    { pod client; pod server; } >"$tmp/pods.yaml"
    quietly kubectl apply --filename "$tmp/pods.yaml"
    quietly kubectl wait --for=condition=Ready pod --all --timeout=120s
    server=$(kubectl get pod server --output 'jsonpath={.status.podIP}')
    quietly write POST services "$(service probe "$address")"
    quietly write POST endpointslices "$(slice probe 8001 "$server")"
    # These end with the cluster.
    in_pod server "$probe" serve 2>/dev/null &
    in_pod client "$probe" watch "$address:80" >"$tmp/seen" 2>/dev/null &
    now=a
    await a 0 60
}

service() {
    echo "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"$1\"},\"spec\":{\"clusterIP\":\"$2\",\"ports\":[{\"port\":80}]}}"
}
# slice NAME PORT ADDRESS...
slice() {
    local name=$1 port=$2 endpoints='' one
    shift 2
    for one; do endpoints+=",{\"addresses\":[\"$one\"],\"conditions\":{\"ready\":true}}"; done
    echo "{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\",\"addressType\":\"IPv4\"," \
        "\"metadata\":{\"name\":\"$name\",\"labels\":{\"kubernetes.io/service-name\":\"$name\"}}," \
        "\"ports\":[{\"port\":$port}],\"endpoints\":[${endpoints#,}]}"
}
path() {
    case $1 in
    services*) echo "http://localhost/api/v1/namespaces/default/$1" ;;
    *) echo "http://localhost/apis/discovery.k8s.io/v1/namespaces/default/$1" ;;
    esac
}
write() { # write POST|PUT RESOURCE OBJECT
    curl --silent --show-error --fail --unix-socket "$tmp/api" --request "$1" --header 'Content-Type: application/json' \
        --data "$3" "$(path "$2")"
}

# fill SERVICES ENDPOINTS: makes what is not there yet, and gives every Service so many endpoints; a thousand at a time.
fill() {
    local n last=-1 verb
    while [ "$last" -lt $(($1 - 1)) ]; do
        n=$((last + 1)) last=$((last + 1000 < $1 ? last + 1000 : $1 - 1))
        awk -v from="$n" -v to="$last" -v made="$made" -v endpoints="$2" -v socket="$tmp/api" \
            -v services="$(path services)" -v slices="$(path endpointslices)" -v service="$(service @NAME @ADDRESS)" \
            -v slice="$(slice @NAME 80 @ADDRESS)" '
            function request(verb, url, data) {
                gsub(/"/, "\\\"", data)
                printf "next\nsilent\nshow-error\nfail\nunix-socket = \"%s\"\noutput = /dev/null\nrequest = %s\n", socket, verb
                printf "header = \"Content-Type: application/json\"\nurl = \"%s\"\ndata = \"%s\"\n", url, data
            }
            function with(text, name, address) {
                gsub(/@NAME/, name, text)
                gsub(/@ADDRESS/, address, text)
                return text
            }
            BEGIN {
                # The part of the slice that is told for each endpoint.
                match(slice, /\{"addresses.*true\}\}/)
                one = substr(slice, RSTART, RLENGTH)
                before = substr(slice, 1, RSTART - 1)
                after = substr(slice, RSTART + RLENGTH)
                for (n = from; n <= to; n++) {
                    name = "s" n
                    if (n >= made)
                        request("POST", services, with(service, name, "10.96." int(n / 250) + 16 "." n % 250 + 1))
                    all = ""
                    for (e = 0; e < endpoints; e++)
                        all = all (e ? "," : "") with(one, name, "10.244." int((n * 10 + e) / 250) % 200 + 50 "." (n * 10 + e) % 250 + 1)
                    body = with(before, name) all after
                    if (n >= made) request("POST", slices, body)
                    else request("PUT", slices "/" name, body)
                }
            }' >"$tmp/requests"
        quietly curl --parallel --parallel-max 20 --config "$tmp/requests"
    done
    if [ "$1" -gt "$made" ]; then made=$1; fi
}

# await LETTER SINCE SECONDS: until the client has got that answer after SINCE; sets `seen` to when, in microseconds.
await() {
    local end=$((SECONDS + $3))
    until seen=$(awk -v letter="$1" -v since="$2" '$2 == letter && $1 > since {print $1; exit}' "$tmp/seen") && [ -n "$seen" ]; do
        if [ "$SECONDS" -ge "$end" ]; then
            echo "$0: the client does not get to the endpoint $1 in $3 s" >&2
            return 1
        fi
        sleep 0.02
    done
}
# flip SECONDS: changes the endpoint; sets `took`, in microseconds.
flip() {
    local begin port
    if [ "$now" = a ]; then now=b port=8002; else now=a port=8001; fi
    body=$(slice probe $port "$server")
    begin=${EPOCHREALTIME/[.,]/}
    write PUT endpointslices/probe "$body" >/dev/null
    await $now "$begin" "$1" || return 1
    took=$((seen - begin))
}

# The processes that program the node: what each is called, and its number there.
programs() {
    case $1 in
    kube-proxy) echo "kube-proxy $(cat "$folder/node-1/kube-proxy.pid")" ;;
    # The kernel keeps fifteen characters of a name.
    sluice) for name in sluiced sluice-controll; do echo "$name $("$cluster" node node-1 pgrep -o -x "$name")"; done ;;
    esac
}
# CPU time of all of them so far, with what they started, in milliseconds.
spent() {
    local program pid sum=0
    while read -r program pid; do
        sum=$((sum + $("$cluster" node node-1 cat "/proc/$pid/stat" | sed 's/.*) //' | awk '{print ($12 + $13 + $14 + $15) * 10}')))
    done < <(programs "$1")
    echo $sum
}
memory() {
    local program pid text=''
    while read -r program pid; do
        text+=", ${program/%controll/controller} $("$cluster" node node-1 awk '/^VmRSS/ {printf "%.0f MB", $2 / 1024}' "/proc/$pid/status")"
    done < <(programs "$1")
    echo "${text#, }"
}

row() { # row NETWORK SERVICES ENDPOINTS
    local before after times=$tmp/times settled
    fill "$2" "$3"
    # Events come in order: once a later change is in force, all is.
    flip 600
    settled=$took
    : >"$times"
    before=$(spent "$1")
    for _ in $(seq "$changes"); do
        sleep "1.$((RANDOM % 9))"
        flip 120
        echo "$took" >>"$times"
    done
    after=$(spent "$1")
    sort -n "$times" | awk -v row="$2 x $3;$1" -v settled="$settled" -v cpu="$(((after - before) / changes))" -v memory="$(memory "$1")" '
        {v[NR] = $1 / 1000}
        END {printf "%s;%.1f;%.1f;%d;%.1f;%s\n", row, v[int((NR + 1) / 2)], v[int(NR * 0.99 + 0.999)], cpu, settled / 1e6, memory}
    ' >>"$tmp/results"
}

# Ends one of them; how long a change takes that is made at the same time, and how long the client was without an answer.
restart() { # restart NETWORK PROGRAM
    local pid begin in_force
    pid=$(programs "$1" | awk -v name="$2" '$1 == name {print $2}')
    begin=${EPOCHREALTIME/[.,]/}
    "$cluster" node node-1 kill -KILL "$pid"
    if flip 30; then
        in_force=$(awk -v took="$took" 'BEGIN {printf "after %.2f s", took / 1e6}')
    else
        in_force="not within 30 s"
    fi
    sleep 1
    awk -v row="$1;${2/%controll/controller};$in_force" -v begin="$begin" -v end="${EPOCHREALTIME/[.,]/}" '
        $1 > begin && gone {without += $1 - gone; gone = 0}
        $1 > begin && $2 == "-" {gone = $1}
        END {
            if (gone) without += end - gone
            printf "%s;%.2f s\n", row, without / 1e6
        }
    ' "$tmp/seen" >>"$tmp/restarts"
}

for network in $networks; do
    network_up "$network"
    pods_up
    for size in $sizes; do
        row "$network" "${size%x*}" "${size#*x}"
        echo "measured $network $size" >&2
    done
    for program in $(programs "$network" | awk '{print $1}' | tac); do restart "$network" "$program"; done
    network_down
done

echo "Machine: $(nproc) CPUs, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(date -I)," \
    "$changes changes a row, load $(cut -d' ' -f1 /proc/loadavg). In brackets: ratio to the first network with as many Services."
echo
for size in $sizes; do grep "^${size/x/ x };" "$tmp/results"; done | awk -F ';' '
function cell(value, base, unit) { return sprintf("%.1f %s (%.2fx)", value, unit, base > 0 ? value / base : 0) }
NR == 1 {
    print "| Services x endpoints | network | change p50 | change p99 | CPU a change | in force after all were written | memory |"
    print "|---|---|---|---|---|---|---|"
}
$1 != size { size = $1; for (i = 3; i <= 6; i++) base[i] = $i }
{
    printf "| %s | %s | %s | %s | %s | %s | %s |\n", $1, $2, cell($3, base[3], "ms"), cell($4, base[4], "ms"),
        cell($5, base[5], "ms"), cell($6, base[6], "s"), $7
}'
echo
awk -F ';' -v size="$size" '
NR == 1 {
    print "| killed, with " size " | network | a change made at that time is in force | no answers for |"
    print "|---|---|---|---|"
}
{ printf "| %s | %s | %s | %s |\n", $2, $1, $3, $4 }' "$tmp/restarts"
