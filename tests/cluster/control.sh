#!/usr/bin/env bash
# The first process of a cluster's control plane, in namespaces of its own: etcd, API server, controller manager, scheduler.
# control.sh FOLDER PODS SERVICES ADDRESS
set -euo pipefail
folder=$1 pods=$2 services=$3 address=$4
here=$(dirname "${BASH_SOURCE[0]}")
home=$folder/control
. "$here/supervise.sh"
hostname control
ip link set lo up
# The nodes' networks, the near one and the far one.
for subnet in 0 1; do
  ip link add "lab$subnet" type bridge
  ip address add "172.30.$subnet.1/24" dev "lab$subnet"
  ip address add "fd00:30:0:$subnet::1/64" dev "lab$subnet" nodad
  ip link set "lab$subnet" up
done
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
kube=$folder/programs/kube

# Durability is not what is tested here.
keep etcd "$kube" etcd --data-dir "$home/etcd" --unsafe-no-fsync --listen-peer-urls http://127.0.0.1:2380 \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
# Node names do not resolve here, hence addresses for exec and logs. What controllers may not do is in the audit log.
keep kube-apiserver "$kube" kube-apiserver --etcd-servers http://127.0.0.1:2379 \
  --bind-address :: --advertise-address "$address" --cert-dir "$home/certs" --service-cluster-ip-range "$services" \
  --token-auth-file "$folder/tokens.csv" --authorization-mode Node,RBAC --allow-privileged \
  --kubelet-preferred-address-types InternalIP --service-account-issuer https://kubernetes.default.svc \
  --service-account-key-file "$folder/accounts.key" --service-account-signing-key-file "$folder/accounts.key" \
  --audit-policy-file "$here/audit.yaml" --audit-log-path "$home/audit.log"
until [ -e "$home/certs/apiserver.crt" ]; do sleep 0.05; done
keep kube-controller-manager "$kube" kube-controller-manager --kubeconfig "$folder/kube-controller-manager.kubeconfig" \
  --leader-elect=false --allocate-node-cidrs --cluster-cidr "$pods" --use-service-account-credentials \
  --root-ca-file "$home/certs/apiserver.crt" --service-account-private-key-file "$folder/accounts.key"
keep kube-scheduler "$kube" kube-scheduler --kubeconfig "$folder/kube-scheduler.kubeconfig" --leader-elect=false
reap
