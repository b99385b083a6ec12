#!/usr/bin/python3
"""Mininet's part of benches/lab.sh, in a box that the script makes: one switch with hosts, by Open vSwitch's user-space datapath.

usage: lab.py HOSTS SECONDS BEGIN
  BEGIN: when this was started, in seconds since 1970. SECONDS: length of the stream of TCP; 0 for none.
Prints lines "MEASURE VALUE". With SECONDS "stay" it says that it is up, and waits to be killed.
"""

import json
import os
import sys
import time

from mininet.net import Mininet
from mininet.node import OVSBridge
from mininet.topo import SingleSwitchTopo


def memory():
    """What all processes of the box take but its shell, in MiB; what they share counts once."""
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid not in ("1", str(os.getppid())):
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total / 1024


def main():
    hosts, seconds, begin = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    net = Mininet(topo=SingleSwitchTopo(hosts), switch=lambda name, **words: OVSBridge(name, datapath="user", **words), controller=None)
    net.start()
    print("up", time.time() - begin, flush=True)
    if seconds == "stay":
        time.sleep(60)
    print("memory", memory())
    if hosts <= 10:
        begin = time.time()
        lost = net.pingAll(timeout="1")
        print("ping", time.time() - begin)
        if lost:
            sys.exit(f"{lost} % of the pings were lost")
    if int(seconds):
        one, two = net.get("h1", "h2")
        for host in one, two:
            # The user-space datapath cannot take what a host leaves to its device.
            host.cmd(f"ethtool -K {host.defaultIntf()} tx off tso off gso off")
        two.cmd("iperf3 -s -D -1 && sleep 0.5")
        report = json.loads(one.cmd(f"iperf3 -c {two.IP()} -t {seconds} --json"))
        print("tcp", report["end"]["sum_received"]["bits_per_second"] / 1e9)
    begin = time.time()
    net.stop()
    print("down", time.time() - begin)


main()
