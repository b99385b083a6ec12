#!/bin/bash
# A machine for Docker: run by `unshare --net --mount --pid --fork --kill-child`, it is the first process there, which
# reaps, and with it everything ends. Its argument is a folder of its own; it says "ready" when all is set up.
#
# Outside of the namespaces nothing is touched but the control groups below /sluice-docker-NUMBER, which Docker makes.
set -eu
folder=$1
mount --make-rprivate /
mount -t proc proc /proc
# sysfs shows the interfaces of this namespace then.
mount -t tmpfs tmpfs /run
mkdir -p "$folder"/{docker,sluice,etc} /run/docker/plugins /run/sluice
for path in /var/lib/docker /var/lib/sluice /etc/docker; do
    [ -d "$path" ] || mkdir -p "$path"
done
mount --bind "$folder/docker" /var/lib/docker
mount --bind "$folder/sluice" /var/lib/sluice
mount --bind "$folder/etc" /etc/docker
ip link set lo up
for family in all default; do echo 0 >/proc/sys/net/ipv6/conf/$family/accept_dad; done
# The outside: a router's other side.
unshare --net sleep infinity &
echo $! >/run/outside
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link add up0 type veth peer name eth0 netns $!
ip link set up0 up
ip addr add 192.0.2.1/24 dev up0
ip addr add 2001:db8::1/64 dev up0
nsenter --net --target $! sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set lo up; ip link set eth0 up
    ip addr add 192.0.2.10/24 dev eth0; ip addr add 2001:db8::10/64 dev eth0'
# The image: static busybox, and what it needs to know names by.
mkdir -p /run/image/bin /run/image/etc /run/image/tmp
cp /usr/bin/busybox /run/image/bin/busybox
for name in sh ip ping nc sleep cat echo grep arping; do ln -s busybox "/run/image/bin/$name"; done
echo 'root:x:0:0:root:/:/bin/sh' >/run/image/etc/passwd
echo 'hosts: files dns' >/run/image/etc/nsswitch.conf
tar -C /run/image -cf /run/image.tar .
echo ready
# The first process of a namespace gets every orphan, and bash reaps whatever ends while it waits.
while :; do sleep infinity & wait $!; done
