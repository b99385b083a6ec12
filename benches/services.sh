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
# shellcheck source=benches/cluster-lib.sh
. benches/cluster-lib.sh
address=10.96.255.1
probe_built
case " $networks " in *" sluice "*) image_made ;; esac

network_up() {
    case $1 in
    kube-proxy) quietly "$cluster" up --nodes 1 --cni bridge --proxy ;;
    sluice)
        quietly "$cluster" up --nodes 1
        install deploy/overlays/dev
        ;;
    *) fail "unknown network $1" ;;
    esac
    api_up
    made=0
}
pods_up() {
    { pod client node-1 "$waits"; pod server node-1 "$waits"; } >"$tmp/pods.yaml"
    pods_ready
    server=$(address_of server)
    quietly write POST "$(path services)" "$(service probe "$address")"
    quietly write POST "$(path endpointslices)" "$(slice probe 8001 "$server")"
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

# flip SECONDS: changes the endpoint; sets `took`, in microseconds.
flip() {
    local begin port
    if [ "$now" = a ]; then now=b port=8002; else now=a port=8001; fi
    body=$(slice probe $port "$server")
    begin=${EPOCHREALTIME/[.,]/}
    write PUT "$(path endpointslices/probe)" "$body" >/dev/null
    await $now "$begin" "$1" || return 1
    took=$((seen - begin))
}

# The processes that program the node: what each is called, and its number there.
programs() {
    case $1 in
    kube-proxy) echo "kube-proxy $(cat "$folder/node-1/kube-proxy.pid")" ;;
    sluice) for name in sluiced sluice-controller; do echo "$name $(program "$name")"; done ;;
    esac
}
numbers() { programs "$1" | awk '{print $2}'; }
memory() {
    local program pid text=''
    while read -r program pid; do text+=", $program $(resident "$pid")"; done < <(programs "$1")
    echo "${text#, }"
}

row() { # row NETWORK SERVICES ENDPOINTS
    local before after times=$tmp/times settled
    fill "$2" "$3"
    # Events come in order: once a later change is in force, all is.
    flip 600
    settled=$took
    : >"$times"
    # shellcheck disable=SC2046
    before=$(spent $(numbers "$1"))
    for _ in $(seq "$changes"); do
        sleep "1.$((RANDOM % 9))"
        flip 120
        echo "$took" >>"$times"
    done
    # shellcheck disable=SC2046
    after=$(spent $(numbers "$1"))
    echo "$2 x $3;$1;$(percentiles "$times");$(((after - before) / changes));$(jq -n "$settled / 1e6");$(memory "$1")" >>"$tmp/results"
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
    awk -v row="$1;$2;$in_force" -v begin="$begin" -v end="${EPOCHREALTIME/[.,]/}" '
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

machine "$changes changes a row, load $(load). In brackets: ratio to the first network with as many Services."
for size in $sizes; do grep "^${size/x/ x };" "$tmp/results"; done | awk -F ';' "$cells"'
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
