use super::super::conn::Protocol;
use super::super::settings::ZoneSettings;
use super::super::timeouts::TimeoutClass;
use super::*;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;

const NOW: Millis = Millis(1_000_000);

fn table() -> Table {
    Table::new(Arc::default())
}

fn table_of(max_connections: u32, zone_limits: &[(u16, u32)]) -> Table {
    let table = table();
    let zone = |limit| ZoneSettings { limit: Some(limit), ..ZoneSettings::default() };
    let zones = zone_limits.iter().map(|(no, limit)| (*no, zone(*limit))).collect();
    table.set(CtSettings { max_connections, zones, ..CtSettings::default() }).unwrap();
    table
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

/// UDP from host `n` to port 53.
fn tuple(zone: u16, n: u32) -> Tuple {
    Tuple::new(zone, 17, address(n), address(0xff_ffff)).with_ports(1000, 53)
}

fn conn_at(original: Tuple, reply: Tuple, now: Millis) -> Conn {
    Conn::new(original, reply, Protocol::default(), None, now)
}

fn conn(zone: u16, n: u32, now: Millis) -> Conn {
    let tuple = tuple(zone, n);
    conn_at(tuple, tuple.reversed().unwrap(), now)
}

fn put(table: &Table, conn: Conn, now: Millis) -> Arc<Conn> {
    match table.insert(conn, now).unwrap() {
        Inserted::New(conn) => conn,
        Inserted::Exists(..) => panic!("it was there"),
    }
}

fn reply_seen(conn: &Conn) {
    let Protocol::Plain(state) = &conn.protocol else { panic!("UDP") };
    state.update(Direction::Reply);
}

/// Every connection is found under both tuples, and everything that is counted is there.
fn check(table: &Table, now: Millis) {
    let mut zones = BTreeMap::<u16, u32>::new();
    table.for_each(now, |conn| {
        *zones.entry(conn.original.zone).or_default() += 1;
        for direction in [Direction::Original, Direction::Reply] {
            let (found, seen_as) = table.find(conn.tuple(direction), now).unwrap();
            assert!(Arc::ptr_eq(&found, &conn) && seen_as == direction, "{conn:?}");
        }
        true
    });
    assert!(table.zones().iter().all(|z| zones.get(&z.zone).copied().unwrap_or(0) == z.connections));
    assert_eq!(table.len(), zones.values().sum::<u32>());
    let entries: usize = (0..table.shards.count()).map(|index| table.shards.entries(index)).sum();
    assert!((table.len() as usize..=2 * table.len() as usize).contains(&entries), "{entries} entries");
}

#[test]
fn a_connection_is_found_in_both_directions_until_it_is_removed() {
    let table = table();
    let there = put(&table, conn(5, 1, NOW), NOW);
    let translated = tuple(5, 2).reversed().unwrap().with_dst(address(77));
    let translated = put(&table, conn_at(tuple(5, 2), translated, NOW), NOW);
    check(&table, NOW);
    assert!(table.find(&tuple(6, 1), NOW).is_none(), "another zone");
    assert!(table.find(&tuple(5, 2).reversed().unwrap(), NOW).is_none(), "its answers come to another address");
    for conn in [there, translated] {
        assert!(table.remove(&conn, EndReason::Flushed) && !conn.is_alive());
        assert!(!table.remove(&conn, EndReason::Flushed), "once");
        assert!(table.find(&conn.original, NOW).is_none() && table.find(&conn.reply, NOW).is_none());
    }
    check(&table, NOW);
    assert_eq!(table.counters(), CtCounters { inserted: 2, flushed: 2, ..CtCounters::default() });
}

#[test]
fn both_directions_of_a_ping_are_one_entry() {
    let table = table();
    let v6 = |n: u16| std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into();
    for (proto, src, dst, request, reply) in [(1, address(1), address(2), 8, 0), (58, v6(1), v6(2), 128, 129)] {
        let ping = Tuple::new(0, proto, src, dst).with_ports(77, request << 8);
        let pong = ping.reversed().unwrap();
        assert_eq!((pong.icmp_type(), table.shards.hash(&ping)), (reply as u8, table.shards.hash(&pong)));
    }
}

#[test]
fn who_commits_later_gets_the_one_that_is_there() {
    let table = table();
    let first = put(&table, conn(0, 1, NOW), NOW);
    let back = tuple(0, 1).reversed().unwrap();
    for (original, reply, expected) in [(tuple(0, 1), back, Direction::Original), (back, tuple(0, 1), Direction::Reply)]
    {
        match table.insert(conn_at(original, reply, NOW), NOW) {
            Ok(Inserted::Exists(conn, direction)) => {
                assert!(Arc::ptr_eq(&conn, &first) && direction == expected);
            }
            other => panic!("{other:?}"),
        }
    }
    let clash = tuple(0, 2);
    assert_eq!(table.insert(conn_at(clash, back, NOW), NOW).unwrap_err(), Refused::Taken, "its reply tuple is in use");
    assert!(table.find(&clash, NOW).is_none());
    check(&table, NOW);
    assert_eq!((table.counters().inserted, table.counters().raced), (1, 2));
}

#[test]
fn what_has_expired_is_not_found_and_not_in_the_way() {
    let table = table();
    let timeout = u64::from(TimeoutClass::UdpFirst.default_seconds()) * 1000;
    let old = put(&table, conn(0, 1, NOW), NOW);
    let (before, after) = (Millis(NOW.0 + timeout - 1), Millis(NOW.0 + timeout));
    assert!(table.find(&old.original, before).is_some());
    assert!(table.find(&old.original, after).is_none());
    let new = put(&table, conn(0, 1, after), after);
    assert!(!old.is_alive() && !Arc::ptr_eq(&old, &new));
    check(&table, after);
    let mut settings = CtSettings::default();
    settings.timeouts.set(TimeoutClass::UdpFirst, 1);
    table.set(settings).unwrap();
    assert!(table.find(&new.original, Millis(after.0 + 1000)).is_none(), "settings hold for what is there");
    table.expire(Millis(after.0 + 999));
    assert_eq!(table.len(), 1);
    table.expire(Millis(after.0 + 1000));
    assert_eq!((table.len(), table.counters().expired), (0, 2));
}

#[test]
fn a_full_table_drops_the_unanswered_and_never_the_established() {
    let table = table_of(100, &[]);
    let established: Vec<_> = (0..60).map(|n| put(&table, conn(1, n, NOW), NOW)).collect();
    established.iter().for_each(|conn| reply_seen(conn));
    let later = |n: u64| Millis(NOW.0 + n);
    for n in 0..1000 {
        put(&table, conn(2, n, later(n.into())), later(n.into()));
        assert!(table.len() <= 100);
    }
    assert!(established.iter().all(|conn| conn.is_alive()));
    let counters = table.counters();
    assert_eq!((counters.early_dropped, counters.full), (1000 - 40, 0));
    check(&table, later(1000));
}

#[test]
fn a_table_full_of_established_connections_refuses() {
    let table = table_of(50, &[]);
    for n in 0..50 {
        reply_seen(&put(&table, conn(1, n, NOW), NOW));
    }
    assert_eq!(table.insert(conn(1, 99, NOW), NOW).unwrap_err(), Refused::Full);
    let removed = table.flush(|conn| conn.original == tuple(1, 7));
    assert_eq!((removed, table.counters().full), (1, 1));
    put(&table, conn(1, 99, NOW), NOW);
    check(&table, NOW);
}

#[test]
fn a_flood_of_a_zone_over_its_limit_pushes_out_its_own() {
    let table = table_of(1000, &[(1, 20)]);
    let others: Vec<_> = (0..20).map(|n| put(&table, conn(2, n, NOW), NOW)).collect();
    let established: Vec<_> = (0..10).map(|n| put(&table, conn(1, n, NOW), NOW)).collect();
    established.iter().for_each(|conn| reply_seen(conn));
    let flood: Vec<_> = (100..600).map(|n| put(&table, conn(1, n, NOW), NOW)).collect();
    assert_eq!((table.zone_len(1), table.zone_len(2)), (20, 20));
    assert!(others.iter().chain(&established).all(|conn| conn.is_alive()));
    assert!(flood[490..].iter().all(|conn| conn.is_alive()), "the newest are there");
    flood[490..].iter().for_each(|conn| reply_seen(conn));
    assert_eq!(table.insert(conn(1, 999, NOW), NOW).unwrap_err(), Refused::ZoneFull, "all are established");
    put(&table, conn(2, 999, NOW), NOW);
    let counters = table.counters();
    assert_eq!((counters.early_dropped, counters.zone_full, counters.full), (490, 1, 0));
    check(&table, NOW);
}

#[test]
fn a_lower_limit_removes_nothing_and_lets_nothing_in() {
    let table = table();
    (0..10).for_each(|n| reply_seen(&put(&table, conn(3, n, NOW), NOW)));
    table.set(CtSettings { default_zone_limit: 5, ..CtSettings::default() }).unwrap();
    assert_eq!(table.insert(conn(3, 99, NOW), NOW).unwrap_err(), Refused::ZoneFull);
    assert_eq!(table.zone_len(3), 10);
    put(&table, conn(4, 99, NOW), NOW);
}

#[test]
fn several_workers_that_commit_the_same_connections_get_the_same() {
    let (table, workers, count) = (table(), 4, 500);
    let barrier = Barrier::new(workers);
    let commit = |worker: usize| {
        barrier.wait();
        let commit = |n: u32| {
            // Half of the workers see the packets of the other direction first.
            let (original, reply) = (tuple(0, n), tuple(0, n).reversed().unwrap());
            let (original, reply) = if worker.is_multiple_of(2) { (original, reply) } else { (reply, original) };
            match table.insert(conn_at(original, reply, NOW), NOW).unwrap() {
                Inserted::New(conn) | Inserted::Exists(conn, _) => conn,
            }
        };
        (0..count).map(commit).collect::<Vec<_>>()
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let commit = &commit;
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || commit(worker))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for others in &results[1..] {
        assert!(others.iter().zip(&results[0]).all(|(a, b)| Arc::ptr_eq(a, b)));
    }
    check(&table, NOW);
    assert_eq!(table.counters().inserted, u64::from(count));
}

/// Random numbers, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 40) as u32 % end
    }
}

/// One worker's part in a crowd: few tuples, so that most of what it does collides with what others do. Returns how
/// many connections it put in and took out.
fn crowd(table: &Table, seed: u64, steps: u32) -> (u64, u64) {
    let (mut random, mut put_in, mut taken_out) = (Random(seed), 0, 0);
    for step in 0..steps {
        let now = Millis(NOW.0 + u64::from(step) * 10);
        let tuple = tuple(random.below(3) as u16, random.below(40));
        match random.below(8) {
            0..=3 => {
                let back = tuple.reversed().unwrap();
                let reply = if random.below(2) == 0 { back } else { back.with_dst(address(900 + random.below(8))) };
                match table.insert(conn_at(tuple, reply, now), now) {
                    Ok(Inserted::New(conn)) => {
                        put_in += 1;
                        if random.below(4) == 0 {
                            reply_seen(&conn);
                        }
                    }
                    Ok(Inserted::Exists(conn, direction)) => assert_eq!(conn.tuple(direction), &tuple),
                    Err(Refused::Taken | Refused::Full | Refused::ZoneFull) => {}
                }
            }
            4 | 5 => {
                if let Some((conn, direction)) = table.find(&tuple, now) {
                    assert_eq!(conn.tuple(direction), &tuple);
                    taken_out += u64::from(random.below(2) == 0 && table.remove(&conn, EndReason::Replaced));
                }
            }
            _ => match random.below(200) {
                0 => taken_out += table.flush(|conn| conn.original.zone == 1),
                1..=8 => _ = table.expire_part(now),
                9..=12 => table.for_each(now, |_| true),
                _ => {}
            },
        }
        assert!(table.len() <= 60 && table.zone_len(2) <= 10);
    }
    (put_in, taken_out)
}

#[test]
fn a_crowd_of_workers_leaves_the_table_whole() {
    let table = table_of(60, &[(2, 10)]);
    let (workers, steps) = (4, 3000);
    let sums = std::thread::scope(|scope| {
        let table = &table;
        let workers: Vec<_> = (0..workers).map(|seed| scope.spawn(move || crowd(table, seed, steps))).collect();
        let sums = workers.into_iter().map(|worker| worker.join().unwrap());
        sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    let counters = table.counters();
    assert_eq!((counters.inserted, counters.replaced + counters.flushed), sums);
    assert!(counters.early_dropped > 0 && counters.zone_full > 0 && counters.raced > 0, "{counters:?}");
    let now = Millis(NOW.0 + u64::from(steps) * 10);
    table.expire(now);
    check(&table, now);
    table.flush(|_| true);
    assert_eq!(table.len(), 0);
    check(&table, now);
}
