#!/bin/sh
# The first process of a node: a mount, PID, network and UTS namespace in which container runtimes run as on a machine of
# their own. Ends with all that runs in it when it is killed. node.sh FOLDER: the node's own files.
set -eu
root=$1
hostname node
mount --make-rprivate /
for folder in run etc/cni etc/containers opt/cni var/lib/cni var/lib/containerd var/lib/containers var/lib/sluice; do
    mkdir -p "$root/$folder" "/$folder"
    mount --bind "$root/$folder" "/$folder"
done
mkdir -p "$root/sys" /opt/cni/bin /etc/cni/net.d /run/lock
# /sys/class/net of this network namespace, with the machine's control groups.
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind "$root/sys" /sys
cp /usr/lib/cni/* /opt/cni/bin/
ip link set lo up
touch /run/node-is-up
# Reaps what is left to it.
while :; do
    sleep 0.5 &
    wait
done
