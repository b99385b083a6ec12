use super::*;
use crate::port::{PortQueue, TxOutcome};
use sluice_flows::DropReason;
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN, Offload};

/// A WireGuard port on loopback and its only queue.
struct End {
    port: WireguardPort,
    queue: Box<dyn PortQueue>,
    frames: Vec<Frame>,
}

impl End {
    fn new(options: &[(&str, &str)]) -> Self {
        let options = WireguardOptions::parse(options.iter().copied()).unwrap();
        let port = WireguardPort::open("wg0", &options, 1).unwrap();
        port.joined(DpPort(7));
        let queue = port.queues(1).unwrap().remove(0);
        Self { port, queue, frames: (0..32).map(|_| Frame::with_capacity(MAX_FRAME_LEN)).collect() }
    }

    fn set(&self, changes: &[(&str, &str)]) -> Result<(), PortError> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.port.set_options(&changes.iter().map(owned).collect::<Vec<_>>())
    }

    fn send(&mut self, frame: &Frame) -> TxOutcome {
        let mut outcomes = [TxOutcome::Sent];
        self.queue.tx_burst(&[frame], &mut outcomes);
        outcomes[0]
    }

    /// What came: frames, and drops by reason.
    fn receive(&mut self) -> (Vec<Vec<u8>>, Vec<DropReason>) {
        let count = self.queue.rx_burst(&mut self.frames).unwrap();
        let drops = std::iter::from_fn(|| self.queue.rx_dropped()).map(|(port, reason, _)| {
            assert_eq!(port, DpPort(7));
            reason
        });
        let drops = drops.collect();
        (self.frames[..count].iter().map(|frame| frame.bytes().to_vec()).collect(), drops)
    }
}

/// Lets both ends receive until `b` has `count` frames and drops together.
fn carry(a: &mut End, b: &mut End, count: usize) -> (Vec<Vec<u8>>, Vec<DropReason>) {
    let (mut frames, mut drops) = (Vec::new(), Vec::new());
    for _ in 0..5_000 {
        let (got, lost) = b.receive();
        frames.extend(got);
        drops.extend(lost);
        if frames.len() + drops.len() >= count {
            return (frames, drops);
        }
        assert_eq!(a.receive().0.len(), 0);
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{} frames and {} drops came of {count}", frames.len(), drops.len());
}

fn free_port() -> u16 {
    std::net::UdpSocket::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

/// Two ends, each with 10.0.0.N/32 and 2001:db8::N/128 behind the other.
fn pair() -> (End, End) {
    let (a, b) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    let ports = [free_port(), free_port()];
    let end = |own: usize, secret: &SecretKey, other: &SecretKey| {
        let far = 1 - own;
        End::new(&[
            ("private_key", &secret.reveal()),
            ("listen_port", &ports[own].to_string()),
            ("peer.far.public_key", &other.public().to_string()),
            ("peer.far.endpoint", &format!("127.0.0.1:{}", ports[far])),
            ("peer.far.allowed_ips", &format!("10.0.0.{}, 2001:db8::{}", far + 1, far + 1)),
        ])
    };
    (end(0, &a, &b), end(1, &b, &a))
}

/// An IPv4 packet of UDP between two hosts, behind an Ethernet header.
fn packet(from: u8, to: u8, payload: usize) -> Frame {
    let mut bytes = vec![0; 12];
    bytes.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
    bytes.extend([0, 9, 0, 9, 0, 0, 0, 0]);
    bytes.extend((0..payload).map(|i| i as u8));
    let (ip, udp) = ((bytes.len() - 14) as u16, (bytes.len() - 34) as u16);
    bytes[16..18].copy_from_slice(&ip.to_be_bytes());
    bytes[38..40].copy_from_slice(&udp.to_be_bytes());
    Frame::from_bytes(&bytes)
}

#[test]
fn packets_cross_with_an_empty_ethernet_header_and_their_tunnel() {
    let (mut a, mut b) = pair();
    let mut frame = packet(1, 2, 100);
    frame.bytes_mut()[..12].fill(0xee);
    assert_eq!(a.send(&frame), TxOutcome::Sent);
    let (got, _) = carry(&mut a, &mut b, 1);
    assert_eq!(got[0][..12], [0; 12]);
    assert_eq!(got[0][12..], frame.bytes()[12..]);
    let tunnel = b.frames[0].tunnel.unwrap();
    assert_eq!((tunnel.src(), tunnel.id()), (Some("127.0.0.1".parse().unwrap()), 1));
    assert_eq!(b.send(&packet(2, 1, 0)), TxOutcome::Sent);
    carry(&mut b, &mut a, 1);
    let status = a.port.status().remove(0);
    assert!(status.handshake_age.is_some() && status.rx_bytes > 0 && status.tx_bytes > 0);
}

#[test]
fn a_super_frame_arrives_in_segments_that_are_whole() {
    let (mut a, mut b) = pair();
    let mut frame = packet(1, 2, 10_000);
    frame.offload = Offload { gso: GsoKind::Udp, gso_size: 1300, ..Offload::NONE };
    assert_eq!(a.send(&frame), TxOutcome::Sent);
    let (got, drops) = carry(&mut a, &mut b, 8);
    let payload: Vec<u8> = got.iter().flat_map(|frame| frame[42..].to_vec()).collect();
    assert_eq!((payload, drops), (frame.bytes()[42..].to_vec(), vec![]));
}

#[test]
fn a_super_frame_is_one_again_at_the_other_end() {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 0));
    carry(&mut a, &mut b, 1);
    let mut frame = packet(1, 2, 10_000);
    frame.offload = Offload {
        gso: GsoKind::Udp,
        gso_size: 1300,
        csum_partial: true,
        csum_start: 34,
        csum_offset: 6,
        ..Offload::NONE
    };
    assert_eq!(a.send(&frame), TxOutcome::Sent);
    let (got, drops) = carry(&mut a, &mut b, 1);
    assert_eq!((got.len(), drops), (1, vec![]));
    assert_eq!(got[0][42..], frame.bytes()[42..]);
    let offload = b.frames[0].offload;
    assert_eq!((offload.gso, offload.gso_size, offload.csum_partial), (GsoKind::Udp, 1300, true));
}

#[test]
fn a_burst_that_is_full_leaves_no_packet_behind() {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 0));
    carry(&mut a, &mut b, 1);
    b.frames.truncate(1);
    for payload in 1..=20 {
        assert_eq!(a.send(&packet(1, 2, payload)), TxOutcome::Sent);
    }
    let (got, drops) = carry(&mut a, &mut b, 20);
    assert_eq!(got.iter().map(|frame| frame.len() - 42).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    assert_eq!(drops, []);
}

#[test]
fn what_has_no_peer_or_is_no_ip_packet_is_dropped() {
    let (mut a, _b) = pair();
    assert_eq!(a.send(&packet(1, 3, 0)), TxOutcome::Dropped(DropReason::NoRoute));
    let mut arp = packet(1, 2, 0);
    arp.bytes_mut()[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(a.send(&arp), TxOutcome::Dropped(DropReason::ParseError));
    assert_eq!(a.send(&Frame::from_bytes(&[0; 14])), TxOutcome::Dropped(DropReason::ParseError));
    assert_eq!(a.send(&packet(1, 2, 1400)), TxOutcome::Dropped(DropReason::MtuExceeded));
}

#[test]
fn the_flow_may_say_which_peer() {
    let (mut a, mut b) = pair();
    let mut frame = packet(1, 9, 0);
    let mut tunnel = sluice_flows::tunnel::TunnelKey::NONE;
    tunnel.set_dst("127.0.0.1".parse().unwrap());
    frame.tunnel = Some(tunnel);
    assert_eq!(a.send(&frame), TxOutcome::Sent);
    assert_eq!(carry(&mut a, &mut b, 1).0.len(), 1);
}

#[test]
fn a_source_that_is_not_behind_its_peer_is_dropped() {
    let (mut a, mut b) = pair();
    assert_eq!(a.send(&packet(5, 2, 0)), TxOutcome::Sent);
    assert_eq!(carry(&mut a, &mut b, 1), (vec![], vec![DropReason::SpoofGuard]));
}

#[test]
fn noise_on_the_port_is_counted_and_changes_nothing() {
    let (mut a, mut b) = pair();
    let to = ("127.0.0.1", b.port.wanted().listen_port);
    let noise = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for bytes in [&[][..], &[1], &[4; 40], &[1; 148], &[0xff; 1000]] {
        noise.send_to(bytes, to).unwrap();
    }
    assert_eq!(carry(&mut a, &mut b, 3).0.len(), 0);
    a.send(&packet(1, 2, 0));
    assert_eq!(carry(&mut a, &mut b, 1).0.len(), 1);
}

#[test]
fn peers_come_and_go_and_those_that_stay_keep_their_sessions() {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 0));
    carry(&mut a, &mut b, 1);
    let other = SecretKey::generate().unwrap().public().to_string();
    a.set(&[("peer.more.public_key", &other), ("peer.more.allowed_ips", "10.0.0.9")]).unwrap();
    let status = a.port.status();
    assert_eq!(status.iter().map(|p| (&*p.name, p.number)).collect::<Vec<_>>(), [("far", 1), ("more", 2)]);
    assert!(status[0].handshake_age.is_some());
    assert_eq!(a.send(&packet(1, 9, 0)), TxOutcome::Dropped(DropReason::TunnelDown), "nobody knows where it is");
    a.set(&[("peer.far", "")]).unwrap();
    assert_eq!(a.send(&packet(1, 2, 0)), TxOutcome::Dropped(DropReason::NoRoute));
    assert!(a.set(&[("listen_port", "1")]).is_err());
    assert!(a.set(&[("peer.more.public_key", "x")]).is_err());
    assert_eq!(a.port.status().len(), 1, "a change that is refused changes nothing");
}

#[test]
fn both_private_keys_change_while_frames_flow() {
    let (mut a, mut b) = pair();
    let mut sent = 0;
    let mut got = 0;
    let mut stream = |a: &mut End, b: &mut End, count: usize| {
        for _ in 0..count {
            assert_eq!(a.send(&packet(1, 2, 700)), TxOutcome::Sent);
            sent += 1;
            let (frames, drops) = carry(a, b, 1);
            assert_eq!(drops, []);
            got += frames.len();
        }
    };
    stream(&mut a, &mut b, 50);
    let before = a.port.public_key();
    let (key_a, key_b) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    a.set(&[("private_key", &key_a.reveal())]).unwrap();
    stream(&mut a, &mut b, 50);
    b.set(&[("peer.far.public_key", &key_a.public().to_string())]).unwrap();
    stream(&mut a, &mut b, 50);
    b.set(&[("private_key", &key_b.reveal())]).unwrap();
    a.set(&[("peer.far.public_key", &key_b.public().to_string())]).unwrap();
    stream(&mut a, &mut b, 200);
    assert_ne!(a.port.public_key(), before);
    assert_eq!(sent, got);
}

#[test]
fn two_ports_cannot_listen_on_one_udp_port() {
    let (a, _b) = pair();
    let error = WireguardPort::open("wg1", &a.port.wanted(), 2).err().expect("the port is taken");
    assert!(error.to_string().contains("in use"), "{error}");
}
