#!/bin/sh
# Installs the Debian packages that the build, the tests and the benches use. Does nothing when all are there.
set -eu
packages="gcc libc6-dev openvswitch-switch iperf3 sockperf iproute2 nftables iputils-ping traceroute ethtool jq vsftpd tftpd-hpa curl tcpdump tshark wireguard-go wireguard-tools"
missing=""
for package in $packages; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ]; then
    echo "setup: these Debian packages are missing:$missing" >&2
    echo "setup: run 'apt-get install$missing' as root, then try again" >&2
    exit 77
fi
# Open vSwitch is used by its tools alone: its services are not to be started.
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
