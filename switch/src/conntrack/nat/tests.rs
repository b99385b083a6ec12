use super::*;
use crate::conntrack::conn::{PlainState, Protocol};
use crate::conntrack::table::{Inserted, Table};
use proptest::prelude::*;
use sluice_flows::rule::Millis;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

mod packets;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nat(side: NatDirection, addresses: Option<(&str, &str)>, ports: Option<(u16, u16)>) -> Nat {
    let addresses = addresses.map(|(first, last)| (ip(first), ip(last)));
    Nat { direction: Some(side), addresses, ports, ..Nat::default() }
}

fn tcp(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
    Tuple::new(1, 6, ip(src), ip(dst)).with_ports(src_port, dst_port)
}

/// Commits a connection with a translation, as the tracker does.
fn commit(table: &Table, chooser: &Chooser, original: Tuple, nat: &Nat) -> Result<Arc<Conn>, Exhausted> {
    chooser.choose(&original, nat, |reply| {
        let plain = Protocol::Plain(PlainState::default());
        let conn = Conn::new(original, *reply, plain, None, Millis(0)).with_nat(nat.direction);
        match table.insert(conn, Millis(0)) {
            Ok(Inserted::New(conn)) => Some(conn),
            _ => None,
        }
    })
}

#[test]
fn without_a_range_the_port_stays_if_it_is_free_and_moves_within_its_class_if_not() {
    let (table, chooser) = (Table::default(), Chooser::default());
    let snat = nat(NatDirection::Src, Some(("192.0.2.1", "192.0.2.1")), None);
    for (port, class) in [(80, 1..=511), (550, 600..=1023), (700, 600..=1023), (1024, 1024..=65535)] {
        for n in 0..20 {
            let conn = commit(&table, &chooser, tcp(&format!("10.0.0.{n}"), port, "9.9.9.9", 53), &snat).unwrap();
            assert_eq!((conn.reply.dst(), conn.reply.src()), (ip("192.0.2.1"), ip("9.9.9.9")));
            match n {
                0 => assert_eq!(conn.reply.dst_port, port),
                _ => assert!(class.contains(&conn.reply.dst_port), "{port} became {}", conn.reply.dst_port),
            }
        }
    }
}

#[test]
fn the_null_address_translates_ports_only() {
    for (null, src, dst) in [("0.0.0.0", "10.0.0.1", "10.0.0.2"), ("::", "fd00::1", "fd00::2")] {
        let (table, chooser) = (Table::default(), Chooser::default());
        // The other one's reply tuple is what this one's would be.
        let other = Conn::new(
            tcp("10.7.7.7", 1, "10.7.7.8", 2),
            tcp(dst, 80, src, 5000),
            Protocol::Plain(PlainState::default()),
            None,
            Millis(0),
        );
        table.insert(other, Millis(0)).unwrap();
        let conn = commit(&table, &chooser, tcp(src, 5000, dst, 80), &nat(NatDirection::Src, Some((null, null)), None))
            .unwrap();
        assert_eq!((conn.reply.src(), conn.reply.dst()), (ip(dst), ip(src)));
        assert_ne!(conn.reply.dst_port, 5000);
        assert_eq!(conn.nat, Some(NatDirection::Src));
    }
}

#[test]
fn a_destination_whose_ports_are_all_taken_moves_the_source_port() {
    let (table, chooser) = (Table::default(), Chooser::default());
    let dnat = nat(NatDirection::Dst, Some(("10.1.0.1", "10.1.0.1")), Some((8000, 8003)));
    let conns: Vec<_> = (0..6)
        .map(|n| commit(&table, &chooser, tcp("10.0.0.1", 40_000, &format!("10.96.0.{n}"), 80), &dnat).unwrap())
        .collect();
    let ports: HashSet<u16> = conns[..4].iter().map(|conn| conn.reply.src_port).collect();
    assert_eq!(ports, (8000..=8003).collect());
    assert!(conns[..4].iter().all(|conn| conn.reply.dst_port == 40_000));
    for conn in &conns[4..] {
        assert!((8000..=8003).contains(&conn.reply.src_port));
        assert!(conn.reply.dst_port >= 1024 && conn.reply.dst_port != 40_000);
    }
}

#[test]
fn a_protocol_without_ports_has_one_connection_for_each_address() {
    let (table, chooser) = (Table::default(), Chooser::default());
    let snat = nat(NatDirection::Src, Some(("192.0.2.1", "192.0.2.4")), None);
    let gre = |n: u8| Tuple::new(0, 47, ip(&format!("10.0.0.{n}")), ip("9.9.9.9"));
    let used: HashSet<IpAddr> = (0..4).map(|n| commit(&table, &chooser, gre(n), &snat).unwrap().reply.dst()).collect();
    assert_eq!(used.len(), 4);
    assert_eq!(commit(&table, &chooser, gre(4), &snat).unwrap_err(), Exhausted);
    assert_eq!(chooser.exhausted(), 1);
}

#[test]
fn the_identifier_of_a_ping_is_translated_like_a_port() {
    for (proto, kind, src, dst, to) in
        [(1, 8, "10.0.0.", "9.9.9.9", "192.0.2.1"), (58, 128, "fd00::", "2001:db8::9", "2001:db8::1")]
    {
        let (table, chooser) = (Table::default(), Chooser::default());
        let ping = |n: u8| Tuple::new(0, proto, ip(&format!("{src}{n}")), ip(dst)).with_ports(777, kind << 8);
        let snat = nat(NatDirection::Src, Some((to, to)), None);
        let first = commit(&table, &chooser, ping(1), &snat).unwrap();
        let second = commit(&table, &chooser, ping(2), &snat).unwrap();
        assert_eq!(first.reply.src_port, 777);
        assert_ne!(second.reply.src_port, 777);
        assert_eq!(second.reply.icmp_type(), icmp_answer_of(proto, kind as u8));
        let ranged =
            commit(&table, &chooser, ping(3), &nat(NatDirection::Src, Some((to, to)), Some((100, 110)))).unwrap();
        assert!((100..=110).contains(&ranged.reply.src_port));
        let dnat = nat(NatDirection::Dst, Some((to, to)), Some((80, 80)));
        assert_eq!(commit(&table, &chooser, ping(4), &dnat).unwrap().reply.src_port, 777, "no port of an ICMP message");
    }
}

fn icmp_answer_of(proto: u8, kind: u8) -> u8 {
    crate::conntrack::tuple::icmp_answer(proto, kind).unwrap()
}

#[test]
fn with_persistent_a_client_keeps_its_address_and_so_it_does_after_a_restart() {
    let mut snat = nat(NatDirection::Src, Some(("192.0.2.0", "192.0.2.255")), Some((1024, 65535)));
    let spread = |snat: &Nat| {
        let address = |chooser: &Chooser, dst_port| {
            chooser.choose(&tcp("10.0.0.1", 5000, "9.9.9.9", dst_port), snat, |reply| Some(reply.dst())).unwrap()
        };
        let choosers = [Chooser::default(), Chooser::default()];
        let all = choosers.iter().flat_map(|chooser| (1..100).map(|port| address(chooser, port)));
        all.collect::<HashSet<IpAddr>>().len()
    };
    assert!(spread(&snat) > 20);
    snat.persistent = true;
    assert_eq!(spread(&snat), 1);
    let (clients, chooser) = (0..1000u32, Chooser::default());
    let mut load = HashMap::new();
    for n in clients {
        let tuple = Tuple::new(0, 6, Ipv4Addr::from_bits(0x0a00_0000 + n).into(), ip("9.9.9.9"));
        *load.entry(chooser.choose(&tuple, &snat, |reply| Some(reply.dst())).unwrap()).or_insert(0) += 1;
    }
    assert!(load.len() > 200 && load.values().all(|n| *n < 20), "clients are not spread: {load:?}");
}

#[test]
fn random_ports_differ_from_try_to_try_and_hashed_ones_do_not() {
    let chooser = Chooser::default();
    let ports = |choice| {
        let snat = Nat { choice, ..nat(NatDirection::Src, Some(("192.0.2.1", "192.0.2.1")), Some((1000, 60_000))) };
        let tuple = tcp("10.0.0.1", 5000, "9.9.9.9", 53);
        (0..50).map(|_| chooser.choose(&tuple, &snat, |r| Some(r.dst_port)).unwrap()).collect::<HashSet<u16>>().len()
    };
    assert_eq!([ports(NatChoice::Any), ports(NatChoice::Hash)], [1, 1]);
    assert!(ports(NatChoice::Random) > 40);
}

#[test]
fn an_exhausted_pool_takes_few_tries_and_recovers() {
    let chooser = Chooser::default();
    let snat = nat(NatDirection::Src, Some(("10.1.0.0", "10.1.255.255")), Some((1, 65535)));
    let mut tried = Vec::new();
    for n in 0..10 {
        let mut count = 0;
        let original = tcp("10.0.0.1", 5000 + n, "9.9.9.9", 80);
        let none: Result<(), _> = chooser.choose(&original, &snat, |_| {
            count += 1;
            None
        });
        assert_eq!(none, Err(Exhausted));
        tried.push(count);
    }
    assert_eq!(tried, [256, 128, 64, 32, 16, 8, 8, 8, 8, 8]);
    let original = tcp("10.0.0.1", 5000, "9.9.9.9", 80);
    assert!(chooser.choose(&original, &snat, |reply| Some(*reply)).is_ok());
    let mut seen = HashSet::new();
    let _: Result<(), _> = chooser.choose(&original, &snat, |reply| {
        seen.insert((reply.dst(), reply.dst_port));
        None
    });
    assert_eq!(seen.len(), TRIES as usize, "nothing is tried twice in so large a pool");
    let addresses: HashSet<IpAddr> = seen.iter().map(|(address, _)| *address).collect();
    assert!(addresses.len() > 20, "tries are spread: {}", addresses.len());
}

#[test]
fn every_port_of_a_small_range_is_used_before_it_is_exhausted() {
    let (table, chooser) = (Table::default(), Chooser::default());
    let snat = nat(NatDirection::Src, Some(("192.0.2.1", "192.0.2.2")), Some((1000, 1049)));
    let results: Vec<_> =
        (0..110).map(|n| commit(&table, &chooser, tcp("10.0.0.1", 5000 + n, "9.9.9.9", 80), &snat)).collect();
    let used: HashSet<_> = results.iter().flatten().map(|conn| (conn.reply.dst(), conn.reply.dst_port)).collect();
    assert_eq!(used.len(), results.iter().flatten().count(), "no two share one");
    assert_eq!(used.len(), 100);
    assert!(results[109].is_err());
}

#[test]
fn workers_that_choose_at_the_same_time_share_nothing() {
    let (table, chooser) = (Table::default(), Chooser::default());
    let snat = nat(NatDirection::Src, Some(("192.0.2.1", "192.0.2.1")), Some((1000, 1199)));
    let replies: Vec<Tuple> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4u8)
            .map(|worker| {
                let (table, chooser, snat) = (&table, &chooser, &snat);
                scope.spawn(move || {
                    (0..50)
                        .filter_map(|n| {
                            let original = tcp(&format!("10.0.0.{worker}"), 5000 + n, "9.9.9.9", 80);
                            commit(table, chooser, original, snat).ok().map(|conn| conn.reply)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(replies.len(), 200, "the range is large enough for all");
    assert_eq!(replies.iter().collect::<HashSet<_>>().len(), 200);
}

#[test]
fn a_pool_that_is_nearly_full_is_searched_well() {
    let chooser = Chooser::default();
    let snat = nat(NatDirection::Src, Some(("192.0.2.1", "192.0.2.1")), Some((1024, 65535)));
    // One port of 64 is free, here and there.
    let is_free = |reply: &Tuple| (u32::from(reply.dst_port).wrapping_mul(0x9e37_79b9) >> 26 == 0).then_some(());
    let found = (0..1000).filter(|n| {
        let original = tcp("10.0.0.1", 5000 + n, "9.9.9.9", 80);
        chooser.choose(&original, &snat, is_free).is_ok()
    });
    assert!(found.count() > 900);
}

fn some_nat() -> impl Strategy<Value = (bool, Nat)> {
    let choice = prop::sample::select(vec![NatChoice::Any, NatChoice::Hash, NatChoice::Random]);
    let kind = (any::<bool>(), any::<bool>(), any::<bool>(), choice);
    (kind, any::<(u32, u8)>(), prop::option::of((1u16.., 0u16..300)), any::<bool>()).prop_map(
        |((v6, src, persistent, choice), (base, size), ports, null)| {
            let last = u32::from(size).saturating_add(base);
            let address = |low: u32| match v6 {
                true => Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(low)).into(),
                false => IpAddr::from(Ipv4Addr::from_bits(low)),
            };
            let direction = Some(if src { NatDirection::Src } else { NatDirection::Dst });
            let addresses = (!null).then(|| (address(base), address(last)));
            let ports = ports.filter(|_| !null).map(|(low, more)| (low, low.saturating_add(more)));
            (v6, Nat { direction, addresses, ports, choice, persistent })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn each_choice_is_in_range_and_no_two_connections_share_a_tuple(
        (v6, nat) in some_nat(), proto in prop::sample::select(vec![6u8, 17, 132, 47]),
        hosts in proptest::collection::vec((0u8..6, 0u8..4, 1000u16..1010), 1..60)
    ) {
        let (table, chooser) = (Table::default(), Chooser::default());
        let host = |net: u8, n: u8| -> IpAddr {
            if v6 { ip(&format!("fd00:{net}::{n}")) } else { Ipv4Addr::new(10, net, 0, n).into() }
        };
        let mut shown = HashSet::new();
        for (src, dst, port) in hosts {
            let ports = if proto == 47 { (0, 0) } else { (port, 80) };
            let original = Tuple::new(9, proto, host(0, src), host(1, dst)).with_ports(ports.0, ports.1);
            if shown.contains(&original) {
                continue;
            }
            let Ok(conn) = commit(&table, &chooser, original, &nat) else { continue };
            prop_assert!(shown.insert(conn.original));
            prop_assert!(shown.insert(conn.reply), "{:?}", conn.reply);
            let untouched = original.reversed().unwrap();
            let (address, own, port, kept) = match nat.direction {
                Some(NatDirection::Src) => (conn.reply.dst(), original.src(), conn.reply.dst_port, conn.reply.src()),
                _ => (conn.reply.src(), original.dst(), conn.reply.src_port, conn.reply.dst()),
            };
            let kept_before = if kept == conn.reply.src() { untouched.src() } else { untouched.dst() };
            prop_assert_eq!(kept, kept_before);
            match nat.addresses.filter(|(first, _)| !first.is_unspecified()) {
                Some((first, last)) => prop_assert!((first..=last).contains(&address)),
                None => prop_assert_eq!(address, own),
            }
            if let (Some((low, high)), true) = (nat.ports, proto != 47) {
                prop_assert!((low..=high).contains(&port));
            }
            prop_assert_eq!((conn.reply.zone, conn.reply.proto), (9, proto));
        }
    }
}
