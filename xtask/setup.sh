#!/bin/sh
# Installs the Debian packages that the build, the tests and the benches use. Does nothing when all are there.
set -eu
packages="gcc libc6-dev openvswitch-switch iperf3 sockperf iproute2 nftables iputils-ping traceroute ethtool jq vsftpd tftpd-hpa curl tcpdump tshark wireguard-go wireguard-tools containerd runc containernetworking-plugins busybox-static dnsmasq-base iptables podman docker.io openssl procps binutils gnuplot-nox valgrind tmux bird2 mininet chromium"
missing=""
for package in $packages; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "setup: these Debian packages are missing:$missing" >&2
        echo "setup: run 'apt-get install$missing' as root, then try again" >&2
        exit 77
    fi
    # Open vSwitch, containerd and the like are used by their tools alone: their services are not to be started.
    policy=/usr/sbin/policy-rc.d
    made_policy=""
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made_policy=yes
    fi
    trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
# The reference CNI client, and Helm for the chart, where there is a Go toolchain to build them: the tests that use them say so
# where there is none.
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")
go=$(command -v go || ls /usr/local/go/bin/go 2>/dev/null || true)
if [ -n "$go" ]; then
    [ -x "$tools/cnitool" ] || GOBIN=$tools "$go" install github.com/containernetworking/cni/cnitool@v1.3.0
    [ -x "$tools/helm" ] || GOBIN=$tools "$go" install helm.sh/helm/v3/cmd/helm@v3.19.5
fi
# What clusters of tests run, which takes Go too. The tests that use it say so where it could not be built.
folder=$(dirname "$0")/../tests/cluster
"$folder/build" >/dev/null || [ $? = 77 ]
