use super::super::identity::{Identity, Initiator};
use super::super::key::SecretKey;
use super::*;

/// One of two peers, without a network between them.
struct End {
    identities: Vec<Identity>,
    peer: Peer,
    at: SocketAddr,
    /// Packets that came out.
    packets: Vec<Vec<u8>>,
}

impl End {
    fn new(number: u8, secret: &SecretKey, other: &SecretKey) -> Self {
        let identity = Identity::new(number.into(), secret.clone());
        let link = Link::new(&identity, keys(number.into(), other), 0, u32::from(number));
        let at = |n: u8| SocketAddr::from(([192, 0, 2, n], 51820));
        let peer = Peer::new("other", 1, link, Some(at(3 - number)));
        Self { identities: vec![identity], peer, at: at(number), packets: Vec::new() }
    }

    /// What goes out when `packet` is to be sent.
    fn send(&self, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut out = vec![0; 2048];
        match self.peer.lock().seal(packet, &mut out) {
            Sealed::Data(len) | Sealed::Waits(len) | Sealed::Dropped(_, len) => out.truncate(len),
        }
        Some(out).into_iter().filter(|out| !out.is_empty()).collect()
    }

    /// What goes out when `message` comes from `from`.
    fn receive(&mut self, from: SocketAddr, message: &[u8]) -> Result<Vec<Vec<u8>>, DropReason> {
        let (mut out, mut answers) = (vec![0; 2048], Vec::new());
        let mut state = self.peer.lock();
        let initiator;
        let to = if message[0] == INITIATION {
            let who = |identity: &Identity| match identity.initiator(from.ip(), message) {
                Initiator::Peer(public) => Some((identity.number, public)),
                _ => None,
            };
            initiator = self.identities.iter().find_map(who).ok_or(DropReason::Checksum)?;
            To::Keys(initiator.0, &initiator.1)
        } else {
            let at = if message[0] == RESPONSE { 8 } else { 4 };
            To::Index(u32::from_le_bytes(*message[at..].first_chunk().unwrap()) >> 8)
        };
        match state.open(to, from, message, &mut out, Instant::now()) {
            Opened::Packet(len) => self.packets.push(out[..len].to_vec()),
            Opened::Answer(len) => answers.push(out[..len].to_vec()),
            Opened::Nothing => {}
            Opened::Dropped(reason) => return Err(reason),
        }
        while let Some(len) = state.release(&mut out) {
            answers.push(out[..len].to_vec());
        }
        Ok(answers)
    }

    /// Makes the private key another one.
    fn rekey_static(&mut self, number: u64, secret: &SecretKey, other: &SecretKey, index: u32) {
        let identity = Identity::new(number, secret.clone());
        let link = Link::new(&identity, keys(number, other), 0, index);
        self.peer.lock().replace(link, Instant::now());
        self.identities.insert(0, identity);
    }

    fn tick(&self, now: Instant) -> Vec<Vec<u8>> {
        let (mut out, mut sent) = ([0; HANDSHAKE_ROOM], Vec::new());
        self.peer.lock().tick(now, &mut out, |message, _| sent.push(message.to_vec()));
        sent
    }
}

fn keys(identity: u64, other: &SecretKey) -> LinkKeys {
    LinkKeys { identity, public: other.public(), preshared: None }
}

fn secrets() -> (SecretKey, SecretKey) {
    (SecretKey::generate().unwrap(), SecretKey::generate().unwrap())
}

fn pair() -> (End, End) {
    let (a, b) = secrets();
    (End::new(1, &a, &b), End::new(2, &b, &a))
}

/// Carries messages to and fro until there are none.
fn talk(a: &mut End, b: &mut End, mut to_b: Vec<Vec<u8>>) {
    for _ in 0..20 {
        let mut to_a = Vec::new();
        for message in to_b.drain(..) {
            to_a.extend(b.receive(a.at, &message).unwrap_or_default());
        }
        for message in to_a {
            to_b.extend(a.receive(b.at, &message).unwrap_or_default());
        }
        if to_b.is_empty() {
            return;
        }
    }
    panic!("they talk without end");
}

/// An IPv4 packet that ends in `mark`.
fn packet(mark: u8) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    bytes.resize(32, mark);
    bytes
}

fn joined() -> (End, End) {
    let (mut a, mut b) = pair();
    let first = a.send(&packet(0));
    talk(&mut a, &mut b, first);
    assert_eq!(b.packets, [packet(0)]);
    b.packets.clear();
    (a, b)
}

#[test]
fn packets_that_wait_for_the_handshake_arrive_in_order() {
    let (mut a, mut b) = pair();
    let first: Vec<_> = (0..5).flat_map(|n| a.send(&packet(n))).collect();
    assert_eq!(first.len(), 1, "one initiation for all");
    talk(&mut a, &mut b, first);
    assert_eq!(b.packets, (0..5).map(packet).collect::<Vec<_>>());
    let back = b.send(&packet(9));
    talk(&mut b, &mut a, back);
    assert_eq!(a.packets, [packet(9)]);
    assert!(a.peer.lock().handshake_age().is_some());
}

#[test]
fn no_more_packets_wait_than_there_is_room_for() {
    let (a, _) = pair();
    let mut out = vec![0; 2048];
    for n in 0..MAX_WAITING {
        assert!(matches!(a.peer.lock().seal(&packet(0), &mut out), Sealed::Waits(_)), "{n}");
    }
    assert_eq!(a.peer.lock().seal(&packet(0), &mut out), Sealed::Dropped(DropReason::QueueFull, 0));
}

#[test]
fn a_message_that_was_here_before_is_dropped() {
    let (a, mut b) = joined();
    let message = a.send(&packet(1)).remove(0);
    assert_eq!(b.receive(a.at, &message), Ok(vec![]));
    assert_eq!(b.receive(a.at, &message), Err(DropReason::Checksum));
    assert_eq!(b.packets, [packet(1)]);
}

#[test]
fn an_initiation_that_was_here_before_is_dropped() {
    let (mut a, mut b) = pair();
    let initiation = a.send(&packet(0)).remove(0);
    talk(&mut a, &mut b, vec![initiation.clone()]);
    assert_eq!(b.receive(a.at, &initiation), Err(DropReason::Checksum));
}

#[test]
fn a_message_with_a_bit_changed_is_dropped_wherever_it_is() {
    let (a, mut b) = joined();
    let message = a.send(&packet(1)).remove(0);
    for at in 0..message.len() {
        let mut tampered = message.clone();
        tampered[at] ^= 1;
        if at == 0 {
            continue; // Another type of message altogether: see below.
        }
        assert!(b.receive(a.at, &tampered).is_err(), "byte {at}");
    }
    assert!(b.packets.is_empty());
    assert_eq!(b.receive(a.at, &message), Ok(vec![]), "and the whole one is still good");
}

#[test]
fn any_bytes_are_survived() {
    let (a, mut b) = joined();
    let message = a.send(&packet(1)).remove(0);
    for kind in [INITIATION, RESPONSE, COOKIE, DATA] {
        for len in [12, 16, 31, 32, 64, 92, 148, 1500] {
            let mut bytes = message.clone();
            bytes.resize(len, 0xa5);
            bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            // An index that b has, where each type has it.
            bytes.copy_within(4..8, 8);
            assert!(b.receive(a.at, &bytes).is_err(), "type {kind}, {len} bytes");
        }
    }
    let mut last = message;
    last[8..16].fill(0xff);
    assert_eq!(b.receive(a.at, &last), Err(DropReason::ParseError), "a counter that no honest sender reaches");
}

#[test]
fn a_peer_is_followed_only_by_what_is_authentic() {
    let (a, mut b) = joined();
    let elsewhere = SocketAddr::from(([198, 51, 100, 7], 1234));
    let message = a.send(&packet(1)).remove(0);
    let mut tampered = message.clone();
    tampered[20] ^= 1;
    assert!(b.receive(elsewhere, &tampered).is_err());
    assert_eq!(b.peer.lock().endpoint, Some(a.at));
    b.receive(elsewhere, &message).unwrap();
    assert_eq!(b.peer.lock().endpoint, Some(elsewhere));
}

#[test]
fn a_new_session_in_mid_stream_loses_nothing() {
    let (mut a, mut b) = joined();
    let before = a.send(&packet(1)).remove(0);
    let mut out = vec![0; HANDSHAKE_ROOM];
    let len = a.peer.lock().rekey(&mut out);
    let during = a.send(&packet(2)).remove(0);
    talk(&mut a, &mut b, vec![out[..len].to_vec()]);
    let after = a.send(&packet(3)).remove(0);
    assert_ne!(before[4..8], after[4..8], "the new session is in use");
    for message in [&after, &during, &before] {
        assert_eq!(b.receive(a.at, message), Ok(vec![]), "whatever the order");
    }
    assert_eq!(b.packets, [packet(3), packet(2), packet(1)]);
}

#[test]
fn a_new_private_key_loses_nothing_whichever_end_hears_of_it_first() {
    for b_first in [false, true] {
        let (secret, other) = secrets();
        let renewed = SecretKey::generate().unwrap();
        let (mut a, mut b) = (End::new(1, &secret, &other), End::new(2, &other, &secret));
        let first = a.send(&packet(0));
        talk(&mut a, &mut b, first);
        let to_b = |b: &mut End| {
            let link = Link::new(&b.identities[0], keys(2, &renewed), 0, 20);
            b.peer.lock().replace(link, Instant::now());
        };
        let both = |a: &mut End, b: &mut End, mark| {
            let (there, back) = (a.send(&packet(mark)), b.send(&packet(mark)));
            talk(a, b, there);
            talk(b, a, back);
            assert_eq!((a.packets.last(), b.packets.last()), (Some(&packet(mark)), Some(&packet(mark))));
        };
        if b_first {
            to_b(&mut b);
        } else {
            a.rekey_static(3, &renewed, &other, 10);
        }
        both(&mut a, &mut b, 1);
        let handshakes = a.tick(Instant::now());
        talk(&mut a, &mut b, handshakes);
        both(&mut a, &mut b, 2);
        if b_first {
            a.rekey_static(3, &renewed, &other, 10);
        } else {
            to_b(&mut b);
        }
        both(&mut a, &mut b, 3);
        // Whichever asks now, the other knows it.
        let mut out = vec![0; HANDSHAKE_ROOM];
        let len = a.peer.lock().rekey(&mut out);
        talk(&mut a, &mut b, vec![out[..len].to_vec()]);
        both(&mut a, &mut b, 4);
        let new = a.send(&packet(5)).remove(0);
        let link = u32::from_le_bytes(*new[4..].first_chunk().unwrap()) >> 8;
        assert_eq!(link, 20, "b's new link is in use");
        let late = Instant::now() + GRACE + Duration::from_secs(1);
        a.tick(late);
        b.tick(late);
        assert_eq!((a.peer.lock().links().count(), b.peer.lock().links().count()), (1, 1), "the old keys are gone");
        both(&mut a, &mut b, 6);
    }
}

#[test]
fn old_keys_end_even_if_the_new_ones_never_work() {
    let (mut a, b) = joined();
    let (renewed, _) = secrets();
    a.rekey_static(3, &renewed, &SecretKey::generate().unwrap(), 10);
    assert_eq!(a.peer.lock().links().count(), 2);
    assert!(matches!(a.send(&packet(1))[0][0], DATA), "the old session goes on");
    a.tick(Instant::now() + OVERLAP + Duration::from_secs(1));
    assert_eq!(a.peer.lock().links().count(), 1);
    assert!(a.send(&packet(1)).iter().all(|message| message[0] != DATA), "there is no session with {}", b.at);
}

#[test]
fn a_flood_of_handshakes_is_answered_with_cookies() {
    let (mut a, mut b) = pair();
    let mut out = vec![0; HANDSHAKE_ROOM];
    let mut cookies = 0;
    for _ in 0..300 {
        let len = a.peer.lock().rekey(&mut out);
        match b.identities[0].initiator(a.at.ip(), &out[..len]) {
            Initiator::Peer(_) => assert_eq!(cookies, 0, "no work is done for one that has not proved its address"),
            Initiator::Cookie(cookie) => {
                cookies += 1;
                if cookies == 1 {
                    assert_eq!(a.receive(b.at, &cookie), Ok(vec![]));
                    let len = a.peer.lock().rekey(&mut out);
                    assert_eq!(
                        b.receive(a.at, &out[..len]).map(|answers| answers.len()),
                        Ok(1),
                        "with the cookie it is"
                    );
                    return;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no cookie came");
}
