use super::super::timeouts::TimeoutClass;
use super::kind::*;
use super::*;
use Direction::{Original, Reply};
use proptest::prelude::*;

const DATA: u8 = 0;
const SACK: u8 = 3;
const HEARTBEAT_ACK: u8 = 5;

/// A packet with this tag and these chunks: kind, flags, value.
fn packet(tag: u32, chunks: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    for (kind, flags, value) in chunks {
        bytes.extend([*kind, *flags]);
        bytes.extend(((4 + value.len()) as u16).to_be_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A packet with one chunk without a value.
fn one(kind: u8, tag: u32) -> Vec<u8> {
    packet(tag, &[(kind, 0, vec![])])
}

/// INIT or INIT ACK that announces a tag.
fn announcing(kind: u8, tag: u32, announced: u32) -> Vec<u8> {
    packet(tag, &[(kind, 0, [&announced.to_be_bytes()[..], &[0; 12]].concat())])
}

fn read(bytes: &[u8]) -> SctpPacket<'_> {
    SctpPacket::read(bytes).unwrap()
}

type Step = (&'static str, Direction, Vec<u8>, Update, Association);

fn follow(state: &SctpState, steps: impl IntoIterator<Item = Step>) {
    for (what, direction, bytes, update, association) in steps {
        assert_eq!(state.update(direction, &read(&bytes)), update, "{what}: {state:?}");
        assert_eq!(state.association(), association, "{what}");
    }
}

const A: u32 = 0xaaaa_0001;
const B: u32 = 0xbbbb_0002;

/// Established; packets to the end that began carry A, those of the original direction B.
fn established() -> SctpState {
    let state = SctpState::begin(&read(&announcing(INIT, 0, A)));
    follow(
        &state,
        [
            ("INIT again", Original, announcing(INIT, 0, A), Update::New, Association::CookieWait),
            ("INIT ACK", Reply, announcing(INIT_ACK, A, B), Update::Valid, Association::CookieWait),
            ("COOKIE ECHO", Original, one(COOKIE_ECHO, B), Update::Valid, Association::CookieEchoed),
            ("COOKIE ACK", Reply, one(COOKIE_ACK, A), Update::Valid, Association::Established),
        ],
    );
    state
}

#[test]
fn an_association_goes_through_its_states() {
    let state = established();
    assert_eq!(state.timeout_class(), TimeoutClass::SctpEstablished);
    follow(
        &state,
        [
            ("DATA", Original, one(DATA, B), Update::Valid, Association::Established),
            ("SACK", Reply, one(SACK, A), Update::Valid, Association::Established),
            ("wrong tag", Original, one(DATA, A), Update::Invalid, Association::Established),
            ("tag 0", Reply, one(DATA, 0), Update::Invalid, Association::Established),
            ("SHUTDOWN", Original, one(SHUTDOWN, B), Update::Valid, Association::ShutdownSent),
            ("data that was on its way", Reply, one(DATA, A), Update::Valid, Association::ShutdownSent),
            ("SHUTDOWN ACK", Reply, one(SHUTDOWN_ACK, A), Update::Valid, Association::ShutdownAckSent),
            ("SHUTDOWN COMPLETE", Original, one(SHUTDOWN_COMPLETE, B), Update::Valid, Association::Closed),
            ("again", Original, one(SHUTDOWN_COMPLETE, B), Update::Tolerated, Association::Closed),
            ("a forged one", Original, one(SHUTDOWN_COMPLETE, 7), Update::Invalid, Association::Closed),
            ("the next", Reply, announcing(INIT, 0, 5), Update::Replaced, Association::Closed),
        ],
    );
}

#[test]
fn either_end_may_shut_down() {
    let state = established();
    follow(
        &state,
        [
            ("SHUTDOWN", Reply, one(SHUTDOWN, A), Update::Valid, Association::ShutdownReceived),
            ("SHUTDOWN ACK", Original, one(SHUTDOWN_ACK, B), Update::Valid, Association::ShutdownAckSent),
            ("an INIT does not stop that", Reply, announcing(INIT, 0, 5), Update::Valid, Association::ShutdownAckSent),
            (
                "SHUTDOWN COMPLETE of who knows nothing",
                Reply,
                packet(B, &[(SHUTDOWN_COMPLETE, REFLECTED, vec![])]),
                Update::Valid,
                Association::Closed,
            ),
        ],
    );
}

#[test]
fn an_abort_ends_at_any_time() {
    let refused = SctpState::begin(&read(&announcing(INIT, 0, A)));
    follow(
        &refused,
        [
            ("with a wrong tag", Reply, one(ABORT, B), Update::Invalid, Association::CookieWait),
            ("refused", Reply, one(ABORT, A), Update::Valid, Association::Closed),
        ],
    );
    let state = established();
    follow(
        &state,
        [
            ("the other end's tag", Original, one(ABORT, A), Update::Invalid, Association::Established),
            (
                "it, said to be so",
                Original,
                packet(A, &[(ABORT, REFLECTED, vec![])]),
                Update::Valid,
                Association::Closed,
            ),
        ],
    );
}

#[test]
fn nothing_moves_before_the_cookie() {
    let state = SctpState::begin(&read(&announcing(INIT, 0, A)));
    follow(
        &state,
        [
            ("DATA", Original, one(DATA, B), Update::Invalid, Association::CookieWait),
            ("INIT ACK with a wrong tag", Reply, announcing(INIT_ACK, B, B), Update::Invalid, Association::CookieWait),
            ("INIT ACK of nothing", Reply, announcing(INIT_ACK, A, 0), Update::Invalid, Association::CookieWait),
            ("COOKIE ECHO too early", Original, one(COOKIE_ECHO, B), Update::Invalid, Association::CookieWait),
            ("INIT ACK", Reply, announcing(INIT_ACK, A, B), Update::Valid, Association::CookieWait),
            ("COOKIE ECHO with a wrong tag", Original, one(COOKIE_ECHO, A), Update::Invalid, Association::CookieWait),
            (
                "COOKIE ECHO with data",
                Original,
                packet(B, &[(COOKIE_ECHO, 0, vec![1; 30]), (DATA, 3, vec![0; 13])]),
                Update::Valid,
                Association::CookieEchoed,
            ),
            (
                "COOKIE ACK with data",
                Reply,
                packet(A, &[(COOKIE_ACK, 0, vec![]), (SACK, 0, vec![0; 12]), (DATA, 3, vec![0; 14])]),
                Update::Valid,
                Association::Established,
            ),
        ],
    );
}

#[test]
fn both_ends_may_begin_at_once() {
    let state = SctpState::begin(&read(&announcing(INIT, 0, A)));
    follow(
        &state,
        [
            ("INIT of the other end", Reply, announcing(INIT, 0, B), Update::Valid, Association::CookieWait),
            ("INIT ACK", Original, announcing(INIT_ACK, B, A), Update::Valid, Association::CookieWait),
            ("INIT ACK of the other end", Reply, announcing(INIT_ACK, A, B), Update::Valid, Association::CookieWait),
            ("COOKIE ECHO", Reply, one(COOKIE_ECHO, A), Update::Valid, Association::CookieEchoed),
            ("COOKIE ACK", Original, one(COOKIE_ACK, B), Update::Valid, Association::Established),
            ("COOKIE ECHO of the other end", Original, one(COOKIE_ECHO, B), Update::Valid, Association::Established),
        ],
    );
}

#[test]
fn an_end_that_restarts_takes_its_association_over() {
    let state = established();
    let (a, b) = (0xa2, 0xb2);
    follow(
        &state,
        [
            ("INIT", Original, announcing(INIT, 0, a), Update::Valid, Association::Established),
            ("what goes on meanwhile", Reply, one(DATA, A), Update::Valid, Association::Established),
            ("INIT ACK", Reply, announcing(INIT_ACK, a, b), Update::Valid, Association::Established),
            ("COOKIE ECHO", Original, one(COOKIE_ECHO, b), Update::Valid, Association::Established),
            ("DATA", Reply, one(DATA, a), Update::Valid, Association::Established),
            ("DATA of before", Reply, one(DATA, A), Update::Invalid, Association::Established),
        ],
    );
    assert!(state.admits(Original, b) && !state.admits(Original, B));
}

#[test]
fn a_forged_init_does_an_established_association_no_harm() {
    let state = established();
    follow(
        &state,
        [
            ("forged", Original, announcing(INIT, 0, 7), Update::Valid, Association::Established),
            ("forged, no INIT ACK was seen", Original, one(COOKIE_ECHO, 8), Update::Invalid, Association::Established),
            ("DATA", Original, one(DATA, B), Update::Valid, Association::Established),
            ("DATA", Reply, one(DATA, A), Update::Valid, Association::Established),
        ],
    );
}

#[test]
fn a_heartbeat_picks_an_association_up() {
    let heartbeat = one(HEARTBEAT, B);
    assert!(read(&heartbeat).may_begin());
    let state = SctpState::begin(&read(&heartbeat));
    assert_eq!(state.association(), Association::HeartbeatSent);
    follow(
        &state,
        [
            ("again", Original, heartbeat, Update::New, Association::HeartbeatSent),
            ("another tag", Original, one(HEARTBEAT, A), Update::Invalid, Association::HeartbeatSent),
            ("answer", Reply, one(HEARTBEAT_ACK, A), Update::Valid, Association::Established),
            ("DATA", Original, one(DATA, B), Update::Valid, Association::Established),
            ("DATA", Reply, one(DATA, B), Update::Invalid, Association::Established),
        ],
    );
}

#[test]
fn only_an_init_or_a_heartbeat_begins() {
    for kind in 0..=255 {
        let alone = read(&one(kind, 9)).may_begin();
        assert_eq!(alone, kind == HEARTBEAT, "{kind}");
    }
    assert!(read(&announcing(INIT, 0, 1)).may_begin());
    for bytes in [announcing(INIT, 1, 1), announcing(INIT, 0, 0), one(INIT, 0), one(HEARTBEAT, 0), vec![0; 12]] {
        assert!(!read(&bytes).may_begin(), "{bytes:?}");
    }
}

#[test]
fn chunks_have_to_fit() {
    let whole = packet(1, &[(DATA, 3, vec![0; 13]), (SACK, 0, vec![0; 12])]);
    assert!(read(&whole).is_sound());
    assert_eq!(read(&whole).plain_tag(), Some(1));
    for len in 12..whole.len() {
        // At 32 the first chunk is whole, and at 29 all but its padding.
        assert_eq!(read(&whole[..len]).is_sound(), (29..=32).contains(&len), "{len}");
    }
    let mut short = whole.clone();
    short[15] = 3;
    assert!(!read(&short).is_sound() && read(&short).plain_tag().is_none());
    let bundled = packet(0, &[(INIT, 0, vec![1; 16]), (DATA, 0, vec![])]);
    assert!(!read(&bundled).is_sound(), "an INIT is alone");
    assert_eq!(read(&packet(1, &[(SACK, 0, vec![]), (SHUTDOWN, 0, vec![])])).plain_tag(), None);
    assert!(SctpPacket::read(&whole[..11]).is_none());
}

proptest! {
    #[test]
    fn the_quick_way_does_what_the_careful_way_does(
        kinds in proptest::collection::vec(0..20_u8, 1..4), tag in prop_oneof![Just(A), Just(B), any::<u32>()],
        reply: bool, before in proptest::collection::vec((any::<bool>(), 0..16_u8), 0..6),
    ) {
        let state = established();
        for (reply, kind) in before {
            let (direction, tag) = if reply { (Reply, A) } else { (Original, B) };
            state.update(direction, &read(&one(kind, tag)));
        }
        let direction = if reply { Reply } else { Original };
        let bytes = packet(tag, &kinds.iter().map(|kind| (*kind, 0, vec![0; 5])).collect::<Vec<_>>());
        let packet = read(&bytes);
        let quick = packet.plain_tag().is_some_and(|tag| state.admits(direction, tag));
        let before = state.known();
        let established = state.association() == Association::Established;
        let update = state.update(direction, &packet);
        if quick {
            prop_assert_eq!((update, state.known()), (Update::Valid, before));
        } else if packet.plain_tag().is_some() && established {
            prop_assert_eq!(update, Update::Invalid);
        }
    }

    #[test]
    fn any_bytes_are_taken_in(
        packets in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 12..60)), 1..10)
    ) {
        let state = SctpState::begin(&read(&packets[0].1));
        for (reply, bytes) in &packets {
            read(bytes).plain_tag();
            state.update(if *reply { Reply } else { Original }, &read(bytes));
        }
    }
}
