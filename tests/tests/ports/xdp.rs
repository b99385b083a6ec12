//! What AF_XDP ports do: what they find and leave at an interface, several queues, full queues, refusals.

use super::device::{check_loss, check_spread, flow};
use super::*;
use sluice_switch::port::{PortDevice, PortSpec, RxLoss};
use sluice_tests::daemon::{Daemon, sluiced};
use sluice_tests::host::wait_for_carrier;
use sluice_tests::programs::run;
use std::io::{self, Write};
use std::process::Command;

/// The modes that every veth has.
const MODES: [XdpMode; 2] = [XdpMode::Native, XdpMode::Generic];

fn options(mode: XdpMode) -> AfXdpOptions {
    AfXdpOptions { mode, ..AfXdpOptions::default() }
}

/// A veth pair, each end with so many queues each way, up: the end `near` and the end `far`.
fn pair(queues: usize) -> [Netns; 2] {
    let [near, far] = [Netns::without_ipv6().unwrap(), Netns::without_ipv6().unwrap()];
    let queues = queues.to_string();
    let many = ["numrxqueues", &queues, "numtxqueues", &queues];
    let mut words = vec!["ip", "link", "add", "near"];
    words.extend(many);
    let path = far.path().display().to_string();
    words.extend(["type", "veth", "peer", "name", "far", "netns", &path]);
    words.extend(many);
    assert_eq!(run(&near, &words), (Some(0), String::new()));
    near.set_up("near", true).unwrap();
    far.set_up("far", true).unwrap();
    wait_for_carrier(&[(&near, "near"), (&far, "far")]);
    [near, far]
}

/// All that can be seen of both ends.
fn looks(ends: &[Netns; 2]) -> String {
    let [near, far] = ends;
    let mut text = String::new();
    for (netns, link) in [(near, "near"), (far, "far")] {
        for words in [&["ip", "-d", "link", "show", link][..], &["ethtool", "-k", link]] {
            text += &run(netns, words).1;
        }
    }
    text
}

/// Whether `test` cannot run here, which is said.
fn without_sluiced(test: &str) -> bool {
    if skipped(test) {
        return true;
    }
    if !sluiced().exists() {
        _ = writeln!(io::stderr(), "skipped: {test}: sluiced is not built; `cargo build` makes it");
        return true;
    }
    false
}

#[test]
fn an_interface_is_left_as_it_was() {
    if skipped("an_interface_is_left_as_it_was") {
        return;
    }
    let ends = pair(2);
    let before = looks(&ends);
    for mode in MODES {
        let port = ends[0].run(|| AfXdp::open("near", &options(mode))).unwrap();
        let queues = port.queues(2).unwrap();
        assert!(run(&ends[0], &["ip", "link", "show", "near"]).1.contains("prog/xdp"), "{mode}");
        assert_eq!(port.mode(), mode);
        // The queues of a port that is removed may be the last to go.
        drop(port);
        assert_eq!(looks(&ends), before, "{mode}");
        drop(queues);
        assert_eq!(looks(&ends), before, "{mode}");
    }
}

#[test]
fn an_interface_is_left_as_it_was_by_a_switch_that_is_killed() {
    if without_sluiced("an_interface_is_left_as_it_was_by_a_switch_that_is_killed") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let ends = pair(1);
    let before = looks(&ends);
    for mode in MODES {
        let file = folder.path().join("sluiced.toml");
        let port = format!("[bridges.br0.ports.near]\ntype = 'af-xdp'\noptions = {{ mode = '{mode}' }}\n");
        std::fs::write(&file, format!("[bridges.br0]\nlocal_port = false\n{port}")).unwrap();
        let mut command = Command::new(sluiced());
        command.arg("--config").arg(&file).arg("--socket").arg(folder.path().join("switch.sock"));
        let daemon = Daemon::start(&ends[0], command, folder.path().join("log"));
        assert!(run(&ends[0], &["ip", "link", "show", "near"]).1.contains("prog/xdp"), "{mode}");
        daemon.crash();
        assert_eq!(looks(&ends), before, "{mode}");
    }
}

#[test]
fn an_interface_that_is_taken_is_refused_by_name() {
    if skipped("an_interface_that_is_taken_is_refused_by_name") {
        return;
    }
    let [near, _far] = pair(1);
    for (first, second) in [(MODES[0], MODES[1]), (MODES[1], MODES[0]), (MODES[0], MODES[0])] {
        let _port = near.run(|| AfXdp::open("near", &options(first))).unwrap();
        let error = near.run(|| AfXdp::open("near", &options(second))).unwrap_err();
        assert!(matches!(error, PortError::XdpTaken { .. }), "{error}");
    }
}

#[test]
fn what_cannot_be_had_is_said_by_name() {
    if skipped("what_cannot_be_had_is_said_by_name") {
        return;
    }
    let [near, _far] = pair(2);
    let open = |name: &str, options: AfXdpOptions| near.run(|| AfXdp::open(name, &options)).unwrap_err();
    assert!(matches!(open("gone0", AfXdpOptions::default()), PortError::NoDevice { .. }));
    let error = open("near", AfXdpOptions { queues: vec![0, 2], ..AfXdpOptions::default() });
    assert!(matches!(error, PortError::NoQueue { queue: 2, count: 2, .. }), "{error}");
    // A veth has no memory of its own that it could do without.
    let error = open("near", options(XdpMode::NativeWithZerocopy));
    assert!(matches!(error, PortError::NoXdp { mode: "native-with-zerocopy", .. }), "{error}");
}

#[test]
fn a_switch_in_a_user_namespace_is_told_what_it_lacks() {
    if without_sluiced("a_switch_in_a_user_namespace_is_told_what_it_lacks") {
        return;
    }
    let [near, _far] = pair(1);
    let folder = tempfile::tempdir().unwrap();
    let [program, socket, file] = [sluiced(), folder.path().join("switch.sock"), folder.path().join("sluiced.toml")];
    std::fs::write(&file, "[bridges.br0]\nlocal_port = false\n[bridges.br0.ports.lo]\ntype = 'af-xdp'\n").unwrap();
    let [program, socket, file] = [program, socket, file].map(|path| path.display().to_string());
    let words = ["unshare", "--user", "--map-root-user", "--net", &program, "--socket", &socket, "--config", &file];
    let (code, said) = run(&near, &words);
    assert!(code == Some(77) && said.contains("CAP_BPF"), "{code:?} {said}");
}

#[test]
fn the_interface_s_queues_are_shared_out_to_workers() {
    if skipped("the_interface_s_queues_are_shared_out_to_workers") {
        return;
    }
    for workers in [1, 2, 4] {
        let [near, other] = pair(2);
        let port = near.run(|| AfXdp::open("near", &AfXdpOptions::default())).unwrap();
        // Past the queueing discipline the kernel would choose a queue by CPU.
        let through = AfPacketOptions { qdisc_bypass: false, ..AfPacketOptions::default() };
        let far = other.run(|| AfPacket::open("far", &through)).unwrap();
        let mut queues = near.run(|| port.queues(workers)).unwrap();
        let mut far = SocketFar { queue: only_queue(&far), netns: near, link: "near" };
        for source in 1000..1256 {
            far.send(flow(source));
        }
        let got: Vec<_> = queues.iter_mut().map(|queue| receive(&mut **queue, 257).len()).collect();
        check_spread(workers, &got);
        for queue in &mut queues {
            assert_eq!(send_one(&mut **queue, &plain(60, 1)), TxOutcome::Sent);
            assert!(far.receive().is_some());
        }
        assert_eq!(port.rx_loss(), RxLoss::default());
    }
}

#[test]
fn queues_that_are_not_asked_for_are_the_host_s() {
    if skipped("queues_that_are_not_asked_for_are_the_host_s") {
        return;
    }
    let [near, other] = pair(2);
    let spec = PortSpec::parse(PortKind::AfXdp, [("queues", "1"), ("mode", "native")]).unwrap();
    let port = near.run(|| spec.open("near", 1)).unwrap();
    let PortDevice::Device(port) = port else { panic!("a device") };
    let host = near.run(|| AfPacket::open("near", &AfPacketOptions::default())).unwrap();
    let (mut queue, mut host) = (only_queue(&*port), only_queue(&host));
    let through = AfPacketOptions { qdisc_bypass: false, ..AfPacketOptions::default() };
    let far = other.run(|| AfPacket::open("far", &through)).unwrap();
    let mut far = SocketFar { queue: only_queue(&far), netns: near, link: "near" };
    for source in 1000..1256 {
        far.send(flow(source));
    }
    let (ours, theirs) = (receive(&mut *queue, 257).len(), receive(&mut *host, 257).len());
    assert!(ours > 0 && theirs > 0 && ours + theirs == 256, "{ours} {theirs}");
}

#[test]
fn a_full_af_xdp_socket_counts_what_it_lost() {
    let Some((port, mut far)) = af_xdp("a_full_af_xdp_socket_counts_what_it_lost") else { return };
    let mut queue = only_queue(&*port);
    let sent = 5000;
    for _ in 0..sent {
        far.send(plain(1514, 1));
    }
    check_loss(&*port, &mut *queue, sent);
}

#[test]
fn in_generic_mode_a_tcp_super_frame_comes_whole() {
    let Some((port, mut far)) = af_xdp_generic("in_generic_mode_a_tcp_super_frame_comes_whole") else { return };
    let mut queue = only_queue(&*port);
    let sent = tcp(40_000);
    far.send(tcp(40_000));
    let frames = receive(&mut *queue, 1);
    let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
    assert_eq!(frame.bytes(), sent.bytes());
    assert_eq!(frame.offload, Offload { gso_size: 1460, hdr_len: 54, ..sent.offload });
    assert_eq!(port.rx_loss(), RxLoss::default());
}
