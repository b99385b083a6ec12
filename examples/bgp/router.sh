# Makes a router of the host that runs it: router.sh ADDRESS CONFIGURATION
set -eu
ip address add "$1" dev eth1
echo 1 > /proc/sys/net/ipv4/ip_forward
# BIRD's socket is seen by this command alone, as this is mounted for nobody else. It goes with it.
mount -t tmpfs bird /run
exec bird -f -c "$LAB_DIR/$2" -s /run/bird.ctl
