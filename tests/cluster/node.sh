#!/usr/bin/env bash
# The first process of a node, in namespaces of its own: containerd, kubelet, and with PROXY kube-proxy.
# node.sh FOLDER NAME GROUP DNS: it has an address of each family (FOLDER/NAME.addresses), and Kubernetes knows it by some
# (FOLDER/NAME.known, which may change).
set -euo pipefail
folder=$1 name=$2 group=$3 dns=$4
home=$folder/$name addresses=$(cat "$folder/$name.addresses")
. "$(dirname "${BASH_SOURCE[0]}")/supervise.sh"
hostname "$name"

# Folders that a machine has for itself. They are shared mounts, since containers see what is mounted there later.
mount --make-rshared /
for own in run etc/cni opt/cni var/lib/{cni,containerd,kubelet,sluice} var/log/{containers,pods}; do
  mkdir -p "$home/$own" "/$own"
  mount --bind "$home/$own" "/$own"
done
mkdir -p /run/lock /run/netns /opt/cni/bin /etc/cni/net.d "$home/sys"
# The interfaces in /sys are those of this network, the control groups those of the machine.
mount -t sysfs sysfs "$home/sys"
mount --rbind /sys/fs/cgroup "$home/sys/fs/cgroup"
mount --rbind "$home/sys" /sys
cp -n /usr/lib/cni/* /opt/cni/bin/

# The network comes from outside.
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip link set eth0 up
ip address add "${addresses%,*}/24" dev eth0
ip address add "${addresses#*,}/64" dev eth0 nodad
near=${addresses%,*} far=${addresses#*,}
ip route add default via "${near%.*}.1"
ip route add default via "${far%::*}::1"
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

# Without CAP_SYS_RESOURCE a container's score for the out-of-memory killer cannot be lowered.
cat >"$home/containerd.toml" <<C
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/toolbox:1"
  restrict_oom_score_adj = true
C
keep containerd containerd --config "$home/containerd.toml"
until ctr version >/dev/null 2>&1; do sleep 0.05; done
ctr --namespace k8s.io images import "$folder/programs/toolbox.tar" >/dev/null

for controller in /sys/fs/cgroup/*/; do mkdir -p "$controller$group" 2>/dev/null || true; done
if [ -e /sys/fs/cgroup/cpuset/cpuset.cpus ]; then
  for file in cpuset.cpus cpuset.mems; do cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/$group/$file"; done
fi
cat >"$home/kubelet.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$group
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
clusterDomain: cluster.local
clusterDNS: ["$dns"]
resolvConf: ""
evictionHard: {memory.available: 10Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
C
run_kubelet() {
  exec "$folder/programs/kube" kubelet --config "$home/kubelet.yaml" --kubeconfig "$folder/$name.kubeconfig" \
    --hostname-override "$name" --node-ip "$(cat "$folder/$name.known")"
}
keep kubelet run_kubelet
if [ -n "${PROXY:-}" ]; then
  keep kube-proxy "$folder/programs/kube" kube-proxy --kubeconfig "$folder/kube-proxy.kubeconfig" --proxy-mode nftables \
    --hostname-override "$name" --cluster-cidr "$PROXY" --conntrack-max-per-core 0 --conntrack-min 0
fi
reap
