//! One suite over every kind of port, each with something at its far end.

use super::*;
use sluice_flows::packet::{GsoKind, MAX_FRAME_LEN, Offload};

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

fn memory() -> (Box<dyn Port>, Box<dyn FarEnd>) {
    let (port, handle) = MemPort::new("m0", &MemOptions::default()).unwrap();
    (Box::new(port), Box::new(MemFar(handle)))
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
        std::thread::sleep(std::time::Duration::from_millis(1));
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

fn a_device_that_vanishes_under_traffic_ends_its_queue(port: &dyn Port, far: &mut dyn FarEnd) {
    let mut queue = only_queue(port);
    far.send(plain(60, 1));
    assert_eq!(receive(&mut *queue, 1).len(), 1);
    if !far.vanish() {
        return;
    }
    assert_eq!(send_one(&mut *queue, &plain(60, 2)), TxOutcome::Dropped(DropReason::PortDown));
    assert!(!port.link_up());
}

/// A TCP super-frame over IPv4 with `payload` bytes, cut at 1448, with its partial checksum.
fn tcp(payload: usize) -> Frame {
    let total = (40 + payload) as u16;
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];
    bytes.extend([0x45, 0, (total >> 8) as u8, total as u8, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    bytes.extend([10, 99, 0, 1, 10, 99, 0, 2]);
    bytes.extend([0x30, 0x39, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
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

macro_rules! suite {
    ($kind:ident: $($case:ident),+ $(,)?) => {
        mod $kind {
            $(
                #[test]
                fn $case() {
                    let (port, mut far) = super::$kind();
                    super::$case(&*port, &mut *far);
                }
            )+
        }
    };
}

suite!(memory:
    bytes_survive_the_round_trip,
    nothing_there_is_zero_frames,
    a_frame_over_the_mtu_is_dropped_and_said_to_be,
    offload_metadata_survives_the_round_trip,
    a_device_that_vanishes_under_traffic_ends_its_queue,
);
