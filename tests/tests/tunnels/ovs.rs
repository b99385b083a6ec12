//! Our tunnels with those of Open vSwitch's user-space datapath.

use crate::underlay::{TUNNEL, Underlay, V4, WIRE};
use sluice_flows::bridge::VlanMode;
use sluice_flows::tunnel::TunnelKind;
use sluice_switch::FailMode;
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::ovs::Daemons;
use sluice_tests::programs::{Running, run};
use sluice_tests::traffic::ping_until_answered;
use sluice_tests::variant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PEER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2));
const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2));

/// Open vSwitch on the far host, its tunnel port of this type and with these options on the bridge `far`.
fn with_ovs(underlay: &Underlay, kind: &str, options: &[&str]) -> Daemons {
    // It cannot take what the kernel leaves to the device.
    for end in &underlay.0 {
        assert_eq!(run(end, &["ethtool", "-K", WIRE, "tx", "off"]).0, Some(0));
    }
    underlay.ip(1, &format!("addr flush dev {WIRE}"));
    let ovs = underlay.0[1].run(Daemons::start_on_devices);
    ovs.vsctl(&["add-br", "under", "--", "set", "bridge", "under", "datapath_type=netdev"]);
    ovs.vsctl(&["add-port", "under", WIRE]);
    ovs.vsctl(&["add-br", "far", "--", "set", "bridge", "far", "datapath_type=netdev"]);
    let kind = format!("type={kind}");
    let remote = format!("options:remote_ip={}", V4[0]);
    let port = ["add-port", "far", "t0", "--", "set", "interface", "t0", &kind, &remote];
    ovs.vsctl(&[&port, options].concat());
    underlay.ip(1, &format!("addr add {}/24 dev under", V4[1]));
    underlay.ip(1, "link set under up");
    underlay.ip(1, "link set far mtu 1400 up");
    underlay.ip(1, &format!("addr add {PEER_V4}/24 dev far"));
    underlay.ip(1, &format!("addr add {PEER_V6}/64 dev far nodad"));
    // It takes our hardware address from what we answer.
    let (_, said) = run(&underlay.0[1], &["ping", "-c", "20", "-i", "0.2", "-W", "1", V4[0]]);
    assert!(said.contains(" ttl="), "{said}");
    ovs
}

fn talk(underlay: &Underlay, lan: &Lan) {
    for to in [PEER_V4, PEER_V6] {
        ping_until_answered(lan.host(1), to);
        let to = to.to_string();
        let _server = Running::start(&underlay.0[1], &["iperf3", "--server", "--bind", &to]);
        for further in [&[][..], &["--reverse"]] {
            let words = [&["iperf3", "--client", &*to, "--bytes", "1M", "--connect-timeout", "3000"], further].concat();
            // The server takes its time to start, and to be done with the last client.
            let done = (0..40).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(100));
                run(&lan.host(1).netns, &words).0 == Some(0)
            });
            assert!(done, "{words:?}: {:?}", run(&lan.host(1).netns, &words));
        }
    }
}

#[test]
fn ours_and_those_of_open_vswitch_understand_each_other() {
    if skipped("ours_and_those_of_open_vswitch_understand_each_other") {
        return;
    }
    assert!(Daemons::are_installed(), "Open vSwitch is one of the packages of xtask/setup.sh");
    for (kind, ours, theirs) in [
        (TunnelKind::Vxlan, &[("key", "7")][..], &["options:key=7"][..]),
        (TunnelKind::Vxlan, &[("key", "7"), ("csum", "false")], &["options:key=7", "options:csum=false"]),
        (TunnelKind::Geneve, &[("key", "7")], &["options:key=7"]),
        (TunnelKind::Gre, &[], &[]),
        (TunnelKind::Gre, &[("key", "0x12345678"), ("csum", "true")], &["options:key=0x12345678", "options:csum=true"]),
    ] {
        let underlay = Underlay::new(1500);
        let options = [&[("remote_ip", V4[1])], ours].concat();
        let mut lan = underlay.switch(0, FailMode::Standalone, kind, &options);
        lan.add_host("br0", 1, variant::port(), 1400, VlanMode::default());
        let _ovs = with_ovs(&underlay, kind.name(), theirs);
        talk(&underlay, &lan);
    }
}

#[test]
fn geneve_options_are_matched_by_both() {
    if skipped("geneve_options_are_matched_by_both") {
        return;
    }
    let map = "{class=0x102,type=0x80,len=4}->tun_metadata0";
    let underlay = Underlay::new(1500);
    let mut lan = underlay.switch(0, FailMode::Secure, TunnelKind::Geneve, &[("remote_ip", V4[1]), ("key", "7")]);
    lan.add_host("br0", 1, variant::port(), 1400, VlanMode::default());
    lan.datapath.set_tlv_map(map.parse().unwrap()).unwrap();
    let inward = format!("in_port={TUNNEL},tun_metadata0=0x1234,actions=output:1");
    let outward = format!("in_port=1,actions=set_field:0xcafe->tun_metadata0,output:{TUNNEL}");
    lan.add_flows("br0", &[&inward, &outward]);
    let ovs = with_ovs(&underlay, "geneve", &["options:key=7"]);
    let bridge = format!("unix:{}/far.mgmt", ovs.dir().display());
    for words in [
        &["add-tlv-map", &*bridge, map][..],
        &["del-flows", &bridge],
        &["add-flow", &bridge, "in_port=t0,tun_metadata0=0xcafe,actions=LOCAL"],
        &["add-flow", &bridge, "in_port=LOCAL,actions=set_field:0x1234->tun_metadata0,t0"],
    ] {
        ovs.run("ovs-ofctl", words).unwrap();
    }
    talk(&underlay, &lan);
}
