//! What one kind of port does: several queues, full queues, and devices that cannot be opened.

use super::*;
use sluice_switch::port::RxLoss;
use sluice_switch::port::link::Link;

#[test]
fn several_queues_of_a_memory_port_are_apart() {
    let (port, handle) = MemPort::new("m0", &MemOptions { queues: 2, ..MemOptions::default() }).unwrap();
    let mut queues = port.queues(3).unwrap();
    assert!(handle.inject_frame(1, plain(60, 1)));
    assert!(!handle.inject_frame(2, plain(60, 1)));
    assert_eq!(queues[0].rx_burst(&mut buffers(1)).unwrap(), 0);
    assert_eq!(queues[1].rx_burst(&mut buffers(1)).unwrap(), 1);
    assert!(queues[2].rx_fd().is_none());
    assert_eq!(send_one(&mut *queues[2], &plain(60, 2)), TxOutcome::Sent);
    assert_eq!(handle.take().expect("the frame").bytes(), plain(60, 2).bytes());
}

#[test]
fn a_worker_that_parks_misses_no_frame() {
    const FRAMES: usize = 50_000;
    let (port, handle) = MemPort::new("m0", &MemOptions::default()).unwrap();
    let mut queue = only_queue(&port);
    let sender = std::thread::spawn(move || {
        for _ in 0..FRAMES {
            while !handle.inject(&[1; 60]) {
                std::thread::yield_now();
            }
        }
    });
    let mut frames = buffers(32);
    let mut got = 0;
    while got < FRAMES {
        assert!(readable(&*queue, 250), "parked for good after {got} frames");
        got += queue.rx_burst(&mut frames).unwrap();
    }
    sender.join().unwrap();
}

#[test]
fn a_full_memory_port_says_so() {
    let (port, handle) = MemPort::new("m0", &MemOptions { depth: 2, ..MemOptions::default() }).unwrap();
    let mut queue = only_queue(&port);
    assert!(handle.inject(&[0; 60]) && handle.inject(&[1; 60]) && !handle.inject(&[2; 60]));
    let frame = plain(60, 1);
    let mut outcomes = [TxOutcome::Dropped(DropReason::Overload); 3];
    queue.tx_burst(&[&frame, &frame, &frame], &mut outcomes);
    assert_eq!(outcomes, [TxOutcome::Sent, TxOutcome::Sent, TxOutcome::Dropped(DropReason::QueueFull)]);
}

/// UDP over IPv4 from this source port: its hash decides which queue it goes to.
pub(super) fn flow(source: u16) -> Frame {
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];
    bytes.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 99, 0, 1, 10, 99, 0, 2]);
    bytes.extend(source.to_be_bytes());
    bytes.extend([0, 53, 0, 26, 0, 0]);
    bytes.resize(60, 0);
    Frame::from_bytes(&bytes)
}

/// Sends 256 flows, some spread over `queues`, and returns how many frames each of them received.
fn spread(far: &mut dyn FarEnd, queues: &mut [Box<dyn PortQueue>]) -> Vec<usize> {
    for source in 1000..1256 {
        far.send(flow(source));
    }
    queues.iter_mut().map(|queue| receive(&mut **queue, 257).len()).collect()
}

#[test]
fn a_tap_spreads_flows_over_the_queues_that_workers_have() {
    if skipped("a_tap_spreads_flows_over_the_queues_that_workers_have") {
        return;
    }
    for workers in [1, 2, 4] {
        let netns = Netns::without_ipv6().unwrap();
        let (port, far) = netns.run(|| {
            let port = Tap::create("tap0", &TapOptions { queues: 2, ..TapOptions::default() }).unwrap();
            (port, AfPacket::open("tap0", &AfPacketOptions::default()).unwrap())
        });
        let mut queues = port.queues(workers).unwrap();
        let mut far = SocketFar { queue: only_queue(&far), netns, link: "tap0" };
        check_spread(workers, &spread(&mut far, &mut queues));
        assert_eq!(send_one(&mut *queues[workers - 1], &plain(60, 1)), TxOutcome::Sent);
        assert!(far.receive().is_some());
    }
}

#[test]
fn a_packet_socket_spreads_flows_over_the_queues_that_workers_have() {
    if skipped("a_packet_socket_spreads_flows_over_the_queues_that_workers_have") {
        return;
    }
    for workers in [1, 2, 4] {
        let (near, other) = (Netns::without_ipv6().unwrap(), Netns::without_ipv6().unwrap());
        near.add_veth("near", &other, "far").unwrap();
        let options = AfPacketOptions { queues: 2, ..AfPacketOptions::default() };
        let port = near.run(|| AfPacket::open("near", &options)).unwrap();
        let far = other.run(|| AfPacket::open("far", &AfPacketOptions::default())).unwrap();
        let mut queues = port.queues(workers).unwrap();
        let mut far = SocketFar { queue: only_queue(&far), netns: near, link: "near" };
        check_spread(workers, &spread(&mut far, &mut queues));
        assert_eq!(send_one(&mut *queues[workers - 1], &plain(60, 1)), TxOutcome::Sent);
        assert!(far.receive().is_some());
        // What the host itself sends by the interface did not come in by it.
        let options = AfPacketOptions { qdisc_bypass: false, ..AfPacketOptions::default() };
        let mut host = only_queue(&far.netns.run(|| AfPacket::open("near", &options)).unwrap());
        assert_eq!(send_one(&mut *host, &plain(60, 1)), TxOutcome::Sent);
        assert!(far.receive().is_some());
        assert!(queues.iter_mut().all(|queue| queue.rx_burst(&mut buffers(1)).unwrap() == 0));
        assert_eq!(port.rx_loss(), RxLoss::default());
    }
}

/// Each of 256 frames came once, to a queue that receives; two such queues share them.
pub(super) fn check_spread(workers: usize, got: &[usize]) {
    assert_eq!(got.iter().sum::<usize>(), 256, "{got:?}");
    if workers > 1 {
        assert!(got[0] > 0 && got[1] > 0, "{got:?}");
        assert!(got[2..].iter().all(|count| *count == 0), "{got:?}");
    }
}

/// Of so many frames that were sent, those that a queue does not have are counted as lost, and some are.
pub(super) fn check_loss(port: &dyn Port, queue: &mut dyn PortQueue, sent: u64) {
    let mut frames = buffers(64);
    let mut got = 0;
    for _ in 0..sent {
        match queue.rx_burst(&mut frames).unwrap() {
            0 => break,
            count => got += count as u64,
        }
    }
    let loss = port.rx_loss();
    assert!(loss.queue_full > 0, "{got} received, {loss:?}");
    assert_eq!(got + loss.queue_full, sent);
    assert_eq!(port.rx_loss(), loss, "asking again does not lose the count");
}

#[test]
fn a_full_packet_socket_counts_what_it_lost() {
    if skipped("a_full_packet_socket_counts_what_it_lost") {
        return;
    }
    let Some((port, mut far)) = af_packet("") else { return };
    let mut queue = only_queue(&*port);
    let sent = 20_000;
    for _ in 0..sent {
        far.send(plain(1514, 1));
    }
    check_loss(&*port, &mut *queue, sent);
}

#[test]
fn what_cannot_be_opened_is_said_by_name() {
    let long = "sixteen-letters-";
    let error = Tap::create(long, &TapOptions::default()).unwrap_err();
    assert!(matches!(error, PortError::Name { .. }), "{error}");
    let error = AfPacket::open("a/b", &AfPacketOptions::default()).unwrap_err();
    assert!(matches!(error, PortError::Name { .. }), "{error}");
    if skipped("what_cannot_be_opened_is_said_by_name") {
        return;
    }
    Netns::without_ipv6().unwrap().run(|| {
        let options = TapOptions::default();
        let error = AfPacket::open("gone0", &AfPacketOptions::default()).unwrap_err();
        assert!(matches!(error, PortError::NoDevice { .. }), "{error}");
        let error = Tap::attach("gone0", &options).unwrap_err();
        assert!(matches!(error, PortError::NoDevice { .. }), "{error}");
        let error = Tap::create("lo", &options).unwrap_err();
        assert!(matches!(error, PortError::NameTaken { .. }), "{error}");
        let error = Tap::attach("lo", &options).unwrap_err();
        assert!(matches!(error, PortError::WrongDevice { .. }), "{error}");
        let tap = Tap::create("tap0", &options).unwrap();
        for error in [Tap::create("tap0", &options).unwrap_err(), TapPlain::create("tap0", &options).unwrap_err()] {
            assert!(matches!(error, PortError::NameTaken { .. }), "{error}");
        }
        let error = Tap::attach("tap0", &options).unwrap_err();
        assert!(matches!(error, PortError::Busy { .. }), "{error}");
        drop(tap);
        assert!(Link::open("tap0").is_err(), "a TAP goes with its port");
    });
}

#[test]
fn a_tap_is_made_as_asked() {
    if skipped("a_tap_is_made_as_asked") {
        return;
    }
    let mac = [0x02, 0, 0, 0x0a, 0x0b, 0x0c];
    let netns = Netns::without_ipv6().unwrap();
    let options = TapOptions { mac: Some(mac), mtu: Some(9000), up: false, ..TapOptions::default() };
    let tap = netns.run(|| Tap::create("tap0", &options)).unwrap();
    // Asked from a thread outside the namespace.
    assert_eq!((tap.mac(), tap.mtu(), tap.link_up()), (Some(mac), 9000, false));
    netns.set_up("tap0", true).unwrap();
    assert!(tap.link_up());
    netns.run(|| Link::open("tap0").unwrap().set_mtu(1400)).unwrap();
    assert_eq!(tap.mtu(), 1400, "the device's MTU was changed by someone else");
}

#[test]
fn a_tap_that_is_moved_to_another_namespace_stays_up_until_it_is_gone() {
    if skipped("a_tap_that_is_moved_to_another_namespace_stays_up_until_it_is_gone") {
        return;
    }
    let (here, there) = (Netns::without_ipv6().unwrap(), Netns::without_ipv6().unwrap());
    let options = TapOptions::default();
    let taps: [Box<dyn Port>; 2] = [
        Box::new(here.run(|| Tap::create("tap0", &options)).unwrap()),
        Box::new(here.run(|| TapPlain::create("tap1", &options)).unwrap()),
    ];
    for tap in taps {
        here.move_link(tap.name(), &there).unwrap();
        there.set_up(tap.name(), true).unwrap();
        assert!(tap.link_up(), "{}", tap.kind());
        let mut queue = only_queue(&*tap);
        assert_eq!(send_one(&mut *queue, &plain(60, 1)), TxOutcome::Sent, "{}", tap.kind());
        there.remove_link(tap.name()).unwrap();
        assert!(!tap.link_up(), "{}", tap.kind());
    }
}
