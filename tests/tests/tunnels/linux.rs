//! Our VXLAN with the kernel's.

use crate::underlay::{Underlay, V4, V6, WIRE, to_the_other};
use sluice_flows::bridge::VlanMode;
use sluice_flows::tunnel::TunnelKind;
use sluice_switch::FailMode;
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::programs::{Running, run};
use sluice_tests::traffic::ping_until_answered;
use sluice_tests::variant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of the kernel's end, in the network of our hosts.
const PEER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2));
const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2));

/// Our switch with host 1, and the kernel's VXLAN at the other end with further `words`.
fn with_linux(underlay: &Underlay, addresses: [&str; 2], ours: &[&str], words: &str, mtu: u32) -> Lan {
    let [local, remote] = [addresses[1], addresses[0]];
    underlay.ip(1, &format!("link add vx0 type vxlan id 7 dstport 4789 local {local} remote {remote} {words}"));
    underlay.ip(1, &format!("link set vx0 mtu {mtu} up"));
    underlay.ip(1, &format!("addr add {PEER_V4}/24 dev vx0"));
    underlay.ip(1, &format!("addr add {PEER_V6}/64 dev vx0 nodad"));
    let options = to_the_other(addresses, 0, &[&["key=7"], ours].concat());
    let options: Vec<_> = options.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut lan = underlay.switch(0, FailMode::Standalone, TunnelKind::Vxlan, &options);
    lan.add_host("br0", 1, variant::port(), mtu, VlanMode::default());
    lan
}

/// TCP both ways between our host and the kernel's end.
fn iperf(underlay: &Underlay, lan: &Lan, to: IpAddr) {
    let to = to.to_string();
    let _server = Running::start(&underlay.0[1], &["iperf3", "--server", "--bind", &to]);
    let client = &lan.host(1).netns;
    for further in [&[][..], &["--reverse"], &["--udp", "--bitrate", "20M", "--length", "500"]] {
        let words = [&["iperf3", "--client", &*to, "--bytes", "4M", "--connect-timeout", "3000"], further].concat();
        // The server takes its time to start, and to be done with the last client.
        let done = (0..40).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            run(client, &words).0 == Some(0)
        });
        assert!(done, "{words:?}: {:?}", run(client, &words));
    }
}

#[test]
fn ours_and_the_kernels_understand_each_other() {
    if skipped("ours_and_the_kernels_understand_each_other") {
        return;
    }
    for (addresses, ours, words) in [
        (V4, &[][..], "udpcsum"),
        (V4, &["csum=false"], "noudpcsum"),
        (V4, &["gbp=true", "tos=inherit"], "gbp"),
        (V6, &[], ""),
        (V6, &["csum=false"], "udp6zerocsumtx udp6zerocsumrx"),
    ] {
        let underlay = Underlay::new(1500);
        let lan = with_linux(&underlay, addresses, ours, words, 1400);
        for to in [PEER_V4, PEER_V6] {
            ping_until_answered(lan.host(1), to);
            iperf(&underlay, &lan, to);
        }
        lan.check_accounts(&[]);
    }
}

#[test]
fn jumbo_frames_pass_between_ours_and_the_kernels() {
    if skipped("jumbo_frames_pass_between_ours_and_the_kernels") {
        return;
    }
    let underlay = Underlay::new(9000);
    let lan = with_linux(&underlay, V4, &[], "", 8900);
    ping_until_answered(lan.host(1), PEER_V4);
    for to in [PEER_V4, PEER_V6].map(|to| to.to_string()) {
        let (code, said) = run(&lan.host(1).netns, &["ping", "-M", "do", "-c", "1", "-s", "8800", "-W", "5", &to]);
        assert_eq!(code, Some(0), "{said}");
    }
    iperf(&underlay, &lan, PEER_V4);
}

#[test]
fn what_is_sent_is_well_formed_to_others() {
    if skipped("what_is_sent_is_well_formed_to_others") {
        return;
    }
    let underlay = Underlay::new(1500);
    let lan = with_linux(&underlay, V4, &[], "", 1400);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wire.pcap");
    let file = file.to_str().unwrap();
    let capture = Running::start(&underlay.0[1], &["tcpdump", "-U", "-i", WIRE, "-w", file, "udp"]);
    sluice_tests::switch::wait_until("the capture runs", || std::fs::metadata(file).is_ok_and(|file| file.len() > 0));
    for to in [PEER_V4, PEER_V6] {
        ping_until_answered(lan.host(1), to);
    }
    iperf(&underlay, &lan, PEER_V4);
    drop(capture);
    let count = |filter: &str| {
        let words = ["tshark", "-r", file, "-Y", filter, "-T", "fields", "-e", "frame.number"];
        let (code, said) = run(&underlay.0[1], &words);
        assert_eq!(code, Some(0), "{said}");
        said.lines().filter(|line| line.parse::<u64>().is_ok()).count()
    };
    assert!(count("vxlan.vni == 7 && tcp") > 0);
    assert_eq!(count("_ws.malformed || vxlan.flag_i == 0"), 0);
}
