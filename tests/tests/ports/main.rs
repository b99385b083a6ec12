//! One suite over every kind of port, each with something at its far end; in its modules, what only one kind does.
//!
//! TAPs and packet sockets run in network namespaces of their own; where those cannot be made, their cases say that they
//! are skipped.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is a failed test")]

mod capture;
mod device;
mod impairments;
mod wire;
mod xdp;

use nix::poll::{PollFd, PollFlags, poll};
use sluice_flows::DropReason;
use sluice_flows::packet::segment::{Segmenter, fill_checksum};
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN, Offload, checksum};
use sluice_switch::port::{
    AfPacket, AfPacketOptions, AfXdp, AfXdpOptions, MemHandle, MemOptions, MemPort, NullPort, Port, PortError,
    PortKind, PortQueue, Tap, TapOptions, TapPlain, TxOutcome, Wire, WireOptions, XdpMode,
};
use sluice_tests::netns::{Netns, skipped};
use std::time::Duration;

/// What is at the far end of a port under test.
trait FarEnd {
    /// Sends a frame towards the port.
    fn send(&mut self, frame: Frame);
    /// What the port sent, oldest first; waits a bounded time for it.
    fn receive(&mut self) -> Option<Frame>;
    /// Takes the device away under the port's queues; `false` when this kind has nothing to take away.
    fn vanish(&mut self) -> bool;
}

struct MemFar(MemHandle);

impl FarEnd for MemFar {
    fn send(&mut self, frame: Frame) {
        assert!(self.0.inject_frame(0, frame));
    }

    fn receive(&mut self) -> Option<Frame> {
        self.0.take()
    }

    fn vanish(&mut self) -> bool {
        self.0.vanish();
        true
    }
}

/// A packet socket at the far end, on the TAP itself or on the other end of a veth pair.
struct SocketFar {
    queue: Box<dyn PortQueue>,
    netns: Netns,
    /// The interface under the port under test.
    link: &'static str,
}

impl FarEnd for SocketFar {
    fn send(&mut self, frame: Frame) {
        assert_eq!(send_one(&mut *self.queue, &frame), TxOutcome::Sent);
    }

    fn receive(&mut self) -> Option<Frame> {
        receive(&mut *self.queue, 1).pop()
    }

    fn vanish(&mut self) -> bool {
        self.netns.remove_link(self.link).unwrap();
        true
    }
}

/// A port with its far end; `None` when this machine cannot make it.
type Pair = Option<(Box<dyn Port>, Box<dyn FarEnd>)>;

fn memory(_case: &str) -> Pair {
    let (port, handle) = MemPort::new("m0", &MemOptions::default()).unwrap();
    Some((Box::new(port), Box::new(MemFar(handle))))
}

/// The other end of a wire.
struct WireFar {
    queue: Box<dyn PortQueue>,
    _end: Wire,
}

impl FarEnd for WireFar {
    fn send(&mut self, frame: Frame) {
        assert_eq!(send_one(&mut *self.queue, &frame), TxOutcome::Sent);
    }

    fn receive(&mut self) -> Option<Frame> {
        receive(&mut *self.queue, 1).pop()
    }

    fn vanish(&mut self) -> bool {
        false
    }
}

fn wire_pair(_case: &str) -> Pair {
    let options = WireOptions::to("");
    let [near, far] = Wire::pair(["near", "far"], [&options, &options]).unwrap();
    Some((Box::new(near), Box::new(WireFar { queue: only_queue(&far), _end: far })))
}

fn tap(case: &str) -> Pair {
    if skipped(case) {
        return None;
    }
    let netns = Netns::without_ipv6().unwrap();
    let (port, far) = netns.run(|| {
        let port = Tap::create("tap0", &TapOptions::default()).unwrap();
        (port, AfPacket::open("tap0", &AfPacketOptions::default()).unwrap())
    });
    Some((Box::new(port), Box::new(SocketFar { queue: only_queue(&far), netns, link: "tap0" })))
}

fn tap_plain(case: &str) -> Pair {
    if skipped(case) {
        return None;
    }
    let netns = Netns::without_ipv6().unwrap();
    let (port, far) = netns.run(|| {
        let port = TapPlain::create("tap0", &TapOptions::default()).unwrap();
        (port, AfPacket::open("tap0", &AfPacketOptions::default()).unwrap())
    });
    Some((Box::new(port), Box::new(SocketFar { queue: only_queue(&far), netns, link: "tap0" })))
}

fn af_packet(case: &str) -> Pair {
    veth(case, || Box::new(AfPacket::open("near", &AfPacketOptions::default()).unwrap()))
}

fn af_xdp(case: &str) -> Pair {
    veth(case, || Box::new(AfXdp::open("near", &AfXdpOptions::default()).unwrap()))
}

fn af_xdp_generic(case: &str) -> Pair {
    let options = AfXdpOptions { mode: XdpMode::Generic, ..AfXdpOptions::default() };
    veth(case, || Box::new(AfXdp::open("near", &options).unwrap()))
}

/// What `open` makes of the interface `near`, which is one end of a veth pair, and a packet socket at the other.
fn veth(case: &str, open: impl FnOnce() -> Box<dyn Port> + Send) -> Pair {
    if skipped(case) {
        return None;
    }
    let (near_ns, far_ns) = (Netns::without_ipv6().unwrap(), Netns::without_ipv6().unwrap());
    near_ns.add_veth("near", &far_ns, "far").unwrap();
    let port = near_ns.run(open);
    // The far end takes what the near end's MTU lets through.
    let options = AfPacketOptions { mtu: Some(9000), ..AfPacketOptions::default() };
    let far = far_ns.run(|| AfPacket::open("far", &options)).unwrap();
    for _ in 0..100 {
        if port.link_up() && far.link_up() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Some((port, Box::new(SocketFar { queue: only_queue(&far), netns: near_ns, link: "near" })))
}

/// An Ethernet frame with an experimental type, so that no network stack answers it.
fn plain(len: usize, fill: u8) -> Frame {
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5];
    bytes.resize(len, fill);
    Frame::from_bytes(&bytes)
}

fn buffers(count: usize) -> Vec<Frame> {
    (0..count).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect()
}

fn only_queue(port: &dyn Port) -> Box<dyn PortQueue> {
    port.queues(1).unwrap().pop().unwrap()
}

/// Receives until `count` frames came or nothing has for a while.
fn receive(queue: &mut dyn PortQueue, count: usize) -> Vec<Frame> {
    let mut frames = buffers(count);
    let mut got = 0;
    for _ in 0..200 {
        got += queue.rx_burst(&mut frames[got..]).unwrap();
        if got == count {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    frames.truncate(got);
    frames
}

fn send_one(queue: &mut dyn PortQueue, frame: &Frame) -> TxOutcome {
    let mut outcomes = [TxOutcome::Dropped(DropReason::Overload)];
    queue.tx_burst(&[frame], &mut outcomes);
    outcomes[0]
}

fn bytes_survive_the_round_trip(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    for (i, len) in [60, 61, 1000, 1514].into_iter().enumerate() {
        far.send(plain(len, i as u8));
    }
    let frames = receive(&mut *queue, 4);
    assert_eq!(frames.len(), 4);
    for frame in &frames {
        assert_eq!(frame.offload, Offload::NONE);
        assert_eq!(send_one(&mut *queue, frame), TxOutcome::Sent);
        assert_eq!(far.receive().expect("a frame at the far end").bytes(), frame.bytes());
    }
}

fn nothing_there_is_zero_frames(port: &dyn Port, _far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    assert_eq!(queue.rx_burst(&mut buffers(4)).unwrap(), 0);
    assert_eq!(queue.rx_burst(&mut []).unwrap(), 0);
    queue.tx_burst(&[], &mut []);
}

fn readable(queue: &dyn PortQueue, milliseconds: u8) -> bool {
    let mut fds = [PollFd::new(queue.rx_fd().expect("a descriptor"), PollFlags::POLLIN)];
    poll(&mut fds, milliseconds).unwrap() == 1
}

fn the_descriptor_is_readable_just_while_frames_wait(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    for _ in 0..3 {
        assert_eq!(queue.rx_burst(&mut buffers(1)).unwrap(), 0);
        assert!(!readable(&*queue, 0));
        far.send(plain(60, 1));
        far.send(plain(60, 2));
        assert!(readable(&*queue, 250));
        assert_eq!(receive(&mut *queue, 1).len(), 1);
        assert!(readable(&*queue, 250), "one frame is left");
        assert_eq!(receive(&mut *queue, 1).len(), 1);
    }
}

fn a_frame_over_the_mtu_is_dropped_and_said_to_be(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    assert_eq!(port.mtu(), 1500);
    assert_eq!(send_one(&mut *queue, &plain(1515, 1)), TxOutcome::Dropped(DropReason::MtuExceeded));
    port.set_mtu(1600).unwrap();
    assert_eq!(port.mtu(), 1600);
    let frame = plain(1614, 2);
    assert_eq!(send_one(&mut *queue, &frame), TxOutcome::Sent);
    assert_eq!(far.receive().expect("the second frame").bytes(), frame.bytes());
    assert!(matches!(port.set_mtu(1 << 20), Err(PortError::Mtu { .. })));
}

fn offload_metadata_survives_the_round_trip(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    let mut sent = tcp(40_000);
    sent.offload.hdr_len = 54;
    let mut copy = Frame::with_capacity(sent.len());
    copy.clone_from_frame(&sent);
    far.send(copy);
    let frames = receive(&mut *queue, 1);
    let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
    assert_eq!(frame.bytes(), sent.bytes());
    assert_eq!(Offload { hdr_len: 54, ..frame.offload }, sent.offload);
    assert_eq!(send_one(&mut *queue, frame), TxOutcome::Sent);
    let back = far.receive().expect("the super-frame");
    assert_eq!(back.bytes(), sent.bytes());
    assert_eq!(Offload { hdr_len: 54, ..back.offload }, sent.offload);
}

/// The frame with these tags behind its addresses.
fn tagged(frame: &Frame, tags: &[[u8; 4]]) -> Frame {
    let mut out = Frame::with_capacity(MAX_FRAME_LEN);
    out.clone_from_frame(frame);
    for tag in tags.iter().rev() {
        out.open_gap(12, 4).unwrap().copy_from_slice(tag);
        out.offload.shift(4);
    }
    out
}

fn vlan_tags_survive_both_ways(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    let tags: [&[[u8; 4]]; 4] = [
        &[[0x81, 0x00, 0x00, 0x64]],
        &[[0x81, 0x00, 0xef, 0xfe]],
        &[[0x88, 0xa8, 0x60, 0x0a]],
        &[[0x88, 0xa8, 0x00, 0x0a], [0x81, 0x00, 0x00, 0x64]],
    ];
    for tags in tags {
        let sent = tagged(&plain(60, 7), tags);
        far.send(tagged(&plain(60, 7), tags));
        let frames = receive(&mut *queue, 1);
        assert_eq!(frames[0].bytes(), sent.bytes());
        assert_eq!(send_one(&mut *queue, &frames[0]), TxOutcome::Sent);
        assert_eq!(far.receive().expect("the tagged frame").bytes(), sent.bytes());
    }
}

fn a_tagged_super_frame_keeps_its_checksum_in_place(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    let sent = tagged(&tcp(20_000), &[[0x81, 0x00, 0x00, 0x64]]);
    assert_eq!(sent.offload.csum_start, 38);
    assert_eq!(send_one(&mut *queue, &sent), TxOutcome::Sent);
    let back = far.receive().expect("the super-frame");
    assert_eq!(back.bytes(), sent.bytes());
    assert_eq!(Offload { hdr_len: 0, ..back.offload }, sent.offload);
    far.send(back);
    let frames = receive(&mut *queue, 1);
    assert_eq!(frames[0].bytes(), sent.bytes());
    assert_eq!(Offload { hdr_len: 0, ..frames[0].offload }, sent.offload);
}

fn a_burst_larger_than_a_port_s_own_keeps_its_order(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    let sent: Vec<Frame> = (0..200).map(|i| plain(if i % 50 == 49 { 2000 } else { 64 }, i as u8)).collect();
    let mut outcomes = vec![TxOutcome::Dropped(DropReason::Overload); sent.len()];
    queue.tx_burst(&sent.iter().collect::<Vec<_>>(), &mut outcomes);
    for (i, outcome) in outcomes.iter().enumerate() {
        let expected = if i % 50 == 49 { TxOutcome::Dropped(DropReason::MtuExceeded) } else { TxOutcome::Sent };
        assert_eq!(*outcome, expected, "frame {i}");
    }
    for frame in sent.iter().filter(|frame| frame.len() == 64) {
        assert_eq!(far.receive().expect("every frame that was sent").bytes(), frame.bytes());
    }
}

fn an_empty_frame_is_survived(port: &dyn Port, _far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    for frame in [Frame::from_bytes(&[]), Frame::from_bytes(&[1; 13]), hostile()] {
        // Sent or refused, as the device likes; what counts is that the next frame leaves.
        _ = send_one(&mut *queue, &frame);
        assert_eq!(send_one(&mut *queue, &plain(60, 1)), TxOutcome::Sent);
    }
}

/// A frame whose metadata points far outside it.
fn hostile() -> Frame {
    let mut frame = plain(60, 0);
    frame.offload = Offload {
        gso: GsoKind::Tcp4,
        gso_ecn: true,
        csum_partial: true,
        csum_valid: true,
        gso_size: 1,
        hdr_len: u16::MAX,
        csum_start: 40_000,
        csum_offset: 40_000,
    };
    frame
}

fn a_super_frame_is_cut_and_its_checksums_are_filled_in(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    assert!(!port.caps().tso);
    assert_eq!(send_one(&mut *queue, &tcp(4000)), TxOutcome::Sent);
    for payload in [1448, 1448, 4000 - 2 * 1448] {
        let segment = far.receive().expect("a segment");
        assert_eq!(segment.len(), 54 + payload);
        assert!(tcp_checksum_is_right(segment.bytes()));
    }
    assert!(far.receive().is_none());
    let mut single = tcp(1000);
    single.offload = Offload { gso: GsoKind::None, gso_size: 0, ..single.offload };
    assert_eq!(send_one(&mut *queue, &single), TxOutcome::Sent);
    let mut arrived = far.receive().expect("the frame");
    assert_eq!(arrived.offload.csum_partial, port.caps().csum);
    fill_checksum(&mut arrived).unwrap();
    assert!(tcp_checksum_is_right(arrived.bytes()));
}

fn tcp_checksum_is_right(bytes: &[u8]) -> bool {
    let segment = &bytes[34..];
    let (src, dst) = (bytes[26..30].try_into().unwrap(), bytes[30..34].try_into().unwrap());
    checksum::verify(segment, checksum::pseudo_v4(src, dst, 6, segment.len() as u16))
}

fn a_device_that_vanishes_under_traffic_ends_its_queue(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    far.send(plain(60, 1));
    assert_eq!(receive(&mut *queue, 1).len(), 1);
    if !far.vanish() {
        return;
    }
    assert_eq!(send_one(&mut *queue, &plain(60, 2)), TxOutcome::Dropped(DropReason::PortDown));
    assert!(!port.link_up());
    // A packet socket hears only that the interface went down, which may be before it goes away.
    let ended = (0..10).any(|_| queue.rx_burst(&mut buffers(1)).is_err());
    assert!(ended || port.kind() == PortKind::AfPacket);
}

/// A TCP super-frame over IPv4 with `payload` bytes, cut at 1448, with its partial checksum.
fn tcp(payload: usize) -> Frame {
    let total = (40 + payload) as u16;
    let pseudo = checksum::pseudo_v4([10, 99, 0, 1], [10, 99, 0, 2], 6, total - 20).to_be_bytes();
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];
    bytes.extend([0x45, 0, (total >> 8) as u8, total as u8, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    bytes.extend([10, 99, 0, 1, 10, 99, 0, 2]);
    bytes.extend([0x30, 0x39, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, pseudo[0], pseudo[1], 0, 0]);
    bytes.resize(54 + payload, 0x5a);
    let mut frame = Frame::from_bytes(&bytes);
    frame.offload = Offload {
        gso: GsoKind::Tcp4,
        gso_size: 1448,
        csum_partial: true,
        csum_start: 34,
        csum_offset: 16,
        ..Offload::NONE
    };
    frame
}

/// UDP over IPv4 as a host sends it, with its partial checksum.
fn datagram(id: u16, payload: usize) -> Frame {
    let (total, id) = ((28 + payload) as u16, id.to_be_bytes());
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];
    bytes.extend([0x45, 0, (total >> 8) as u8, total as u8, id[0], id[1], 0x40, 0, 64, 17, 0, 0]);
    bytes.extend([10, 99, 0, 1, 10, 99, 0, 2]);
    let sum = checksum::checksum(&bytes[14..]).to_be_bytes();
    bytes[24..26].copy_from_slice(&sum);
    let pseudo = checksum::pseudo_v4([10, 99, 0, 1], [10, 99, 0, 2], 17, total - 20).to_be_bytes();
    let len = (total - 20).to_be_bytes();
    bytes.extend([0x30, 0x39, 0x14, 0x51, len[0], len[1], pseudo[0], pseudo[1]]);
    bytes.resize(42 + payload, id[1]);
    let mut frame = Frame::from_bytes(&bytes);
    frame.offload = Offload { csum_partial: true, csum_start: 34, csum_offset: 6, ..Offload::NONE };
    frame
}

fn datagrams_leave_joined_and_cutting_gives_them_back(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    let mut frames: Vec<Frame> = (0..40).map(|i| datagram(i, 64)).collect();
    frames.insert(17, plain(60, 7));
    frames[40] = datagram(39, 10);
    let borrowed: Vec<&Frame> = frames.iter().collect();
    let mut outcomes = vec![TxOutcome::Dropped(DropReason::Overload); frames.len()];
    queue.tx_burst(&borrowed, &mut outcomes);
    assert!(outcomes.iter().all(|outcome| *outcome == TxOutcome::Sent), "{outcomes:?}");
    let (mut arrived, mut super_frames) = (Vec::new(), 0);
    while arrived.len() < frames.len() {
        let frame = far.receive().expect("the rest");
        super_frames += usize::from(frame.offload.gso == GsoKind::Udp);
        let mut segments = Segmenter::new(&frame).unwrap();
        let mut segment = Frame::with_capacity(MAX_FRAME_LEN);
        while segments.next_into(&mut segment).unwrap() {
            arrived.push(segment.bytes().to_vec());
        }
    }
    assert_eq!(super_frames, 2);
    for (frame, arrived) in frames.iter_mut().zip(arrived) {
        fill_checksum(frame).unwrap();
        assert_eq!(arrived, frame.bytes());
    }
}

macro_rules! suite {
    ($kind:ident: $($case:ident),+ $(,)?) => {
        mod $kind {
            $(
                #[test]
                fn $case() {
                    if let Some((port, mut far)) = super::$kind(concat!(stringify!($kind), "::", stringify!($case))) {
                        super::$case(&*port, &mut *far);
                    }
                }
            )+
        }
    };
}

suite!(memory:
    bytes_survive_the_round_trip,
    nothing_there_is_zero_frames,
    the_descriptor_is_readable_just_while_frames_wait,
    a_frame_over_the_mtu_is_dropped_and_said_to_be,
    offload_metadata_survives_the_round_trip,
    vlan_tags_survive_both_ways,
    a_tagged_super_frame_keeps_its_checksum_in_place,
    a_burst_larger_than_a_port_s_own_keeps_its_order,
    an_empty_frame_is_survived,
    a_device_that_vanishes_under_traffic_ends_its_queue,
);

suite!(wire_pair:
    bytes_survive_the_round_trip,
    nothing_there_is_zero_frames,
    the_descriptor_is_readable_just_while_frames_wait,
    a_frame_over_the_mtu_is_dropped_and_said_to_be,
    offload_metadata_survives_the_round_trip,
    vlan_tags_survive_both_ways,
    a_tagged_super_frame_keeps_its_checksum_in_place,
    a_burst_larger_than_a_port_s_own_keeps_its_order,
    an_empty_frame_is_survived,
);

suite!(tap:
    bytes_survive_the_round_trip,
    nothing_there_is_zero_frames,
    the_descriptor_is_readable_just_while_frames_wait,
    a_frame_over_the_mtu_is_dropped_and_said_to_be,
    offload_metadata_survives_the_round_trip,
    vlan_tags_survive_both_ways,
    a_tagged_super_frame_keeps_its_checksum_in_place,
    a_burst_larger_than_a_port_s_own_keeps_its_order,
    datagrams_leave_joined_and_cutting_gives_them_back,
    an_empty_frame_is_survived,
    a_device_that_vanishes_under_traffic_ends_its_queue,
);

suite!(tap_plain:
    bytes_survive_the_round_trip,
    nothing_there_is_zero_frames,
    the_descriptor_is_readable_just_while_frames_wait,
    a_frame_over_the_mtu_is_dropped_and_said_to_be,
    a_super_frame_is_cut_and_its_checksums_are_filled_in,
    vlan_tags_survive_both_ways,
    a_burst_larger_than_a_port_s_own_keeps_its_order,
    an_empty_frame_is_survived,
    a_device_that_vanishes_under_traffic_ends_its_queue,
);

suite!(af_packet:
    bytes_survive_the_round_trip,
    nothing_there_is_zero_frames,
    the_descriptor_is_readable_just_while_frames_wait,
    a_frame_over_the_mtu_is_dropped_and_said_to_be,
    offload_metadata_survives_the_round_trip,
    vlan_tags_survive_both_ways,
    a_tagged_super_frame_keeps_its_checksum_in_place,
    a_burst_larger_than_a_port_s_own_keeps_its_order,
    datagrams_leave_joined_and_cutting_gives_them_back,
    an_empty_frame_is_survived,
    a_device_that_vanishes_under_traffic_ends_its_queue,
);

suite!(af_xdp:
    bytes_survive_the_round_trip,
    nothing_there_is_zero_frames,
    the_descriptor_is_readable_just_while_frames_wait,
    a_frame_over_the_mtu_is_dropped_and_said_to_be,
    a_super_frame_is_cut_and_its_checksums_are_filled_in,
    vlan_tags_survive_both_ways,
    a_burst_larger_than_a_port_s_own_keeps_its_order,
    an_empty_frame_is_survived,
    a_device_that_vanishes_under_traffic_ends_its_queue,
);

suite!(af_xdp_generic:
    bytes_survive_the_round_trip,
    nothing_there_is_zero_frames,
    the_descriptor_is_readable_just_while_frames_wait,
    a_frame_over_the_mtu_is_dropped_and_said_to_be,
    a_super_frame_is_cut_and_its_checksums_are_filled_in,
    vlan_tags_survive_both_ways,
    a_burst_larger_than_a_port_s_own_keeps_its_order,
    an_empty_frame_is_survived,
    a_device_that_vanishes_under_traffic_ends_its_queue,
);

#[test]
fn a_null_port_discards_what_fits_and_receives_nothing() {
    let port = NullPort::new("n0", 1500);
    let mut queue = only_queue(&port);
    assert!(queue.rx_fd().is_none());
    assert_eq!(queue.rx_burst(&mut buffers(1)).unwrap(), 0);
    assert_eq!(send_one(&mut *queue, &plain(1514, 0)), TxOutcome::Sent);
    assert_eq!(send_one(&mut *queue, &plain(1515, 0)), TxOutcome::Dropped(DropReason::MtuExceeded));
}
