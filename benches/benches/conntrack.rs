//! A table of a million connections: memory, commits, lookups, expiry beside lookups, and a flood of a full table.
//!
//! Prints one table for each; `cargo bench -p sluice-benches --bench conntrack -- 100000` does it with another number.
//! Rates are by the CPU time of the thread, so that a machine with other work tells the same. Pauses are by the wall
//! clock, which waiting for a lock is part of, and by CPU time; where both have long ones that differ, the difference is
//! the scheduler's, and the row without a sweep tells how much that is. Memory comes from the allocator of `sluiced`.

use mimalloc::MiMalloc;
use nix::time::{ClockId, clock_gettime};
use sluice_benches::acl::Random;
use sluice_benches::alloc::CountingAlloc;
use sluice_flows::rule::Millis;
use sluice_switch::conntrack::measure::BareTable;
use sluice_switch::conntrack::{CtSettings, TimeoutClass, Tuple, ZoneSettings};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOC: CountingAlloc<MiMalloc> = CountingAlloc::over(MiMalloc);

const NOW: Millis = Millis(1_000_000);
/// Lookups of one burst.
const BURST: u32 = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let count = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    println!("{count} connections\n");
    memory(count)?;
    commits(count)?;
    lookups(count)?;
    expiry(count)?;
    flood(count)
}

/// The original tuple of connection `n`.
fn tuple(zone: u16, n: u32) -> Tuple {
    let (src, dst) = (0x0a00_0000 | n >> 4 & 0xff_ffff, 0xc0a8_0000 | n & 0xf);
    let address = |bits| IpAddr::from(Ipv4Addr::from_bits(bits));
    Tuple::new(zone, 6, address(src), address(dst)).with_ports(40_000 + (n & 0xf) as u16, 443)
}

fn tuple_v6(n: u32) -> Tuple {
    let address = |n: u32| IpAddr::from(Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(n)));
    Tuple::new(0, 6, address(n), address(1 << 31)).with_ports(40_000, 443)
}

fn table(max_connections: u32) -> Result<BareTable, Box<dyn Error>> {
    Ok(BareTable::new(CtSettings { max_connections, ..CtSettings::default() })?)
}

/// CPU time that this thread has had.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// A million of these a second.
fn millions(count: u32, time: Duration) -> f64 {
    f64::from(count) / time.as_secs_f64() / 1e6
}

fn memory(count: u32) -> Result<(), Box<dyn Error>> {
    println!("{:<28} {:>16}", "memory", "bytes/connection");
    let translated = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
    type Commit<'a> = &'a dyn Fn(&BareTable, u32) -> bool;
    let kinds: [(&str, Commit<'_>); 3] = [
        ("IPv4", &|table, n| table.commit(tuple(0, n), None, NOW)),
        ("IPv6", &|table, n| table.commit(tuple_v6(n), None, NOW)),
        ("IPv4, translated", &|table, n| {
            table.commit(tuple(0, n).with_ports(n as u16, (n >> 16) as u16), Some(translated), NOW)
        }),
    ];
    for (name, commit) in kinds {
        let before = ALLOC.in_use();
        let table = table(count)?;
        let room = (0..count).all(|n| commit(&table, n));
        assert!(room && table.count() == count, "all are in");
        println!("{name:<28} {:>16}", (ALLOC.in_use() - before) / count as usize);
    }
    Ok(())
}

fn commits(count: u32) -> Result<(), Box<dyn Error>> {
    println!("\n{:<28} {:>10}", "new connections", "million/s");
    for (name, full) in [("into an empty table", false), ("again, after all expired", true)] {
        let table = table(count)?;
        if full {
            (0..count).for_each(|n| _ = table.commit(tuple(0, n), None, NOW));
        }
        let now = if full { Millis(NOW.0 + 100_000_000) } else { NOW };
        let start = cpu();
        for n in 0..count {
            assert!(table.commit(tuple(0, n), None, now), "there is room");
        }
        println!("{name:<28} {:>10.2}", millions(count, cpu() - start));
    }
    single_commits(count)?;
    let (table, barrier) = (table(count)?, Barrier::new(2));
    let (table, barrier) = (&table, &barrier);
    let commit_half = move |half: u32| {
        barrier.wait();
        let start = cpu();
        (0..count / 2).for_each(|n| _ = table.commit(tuple(0, 2 * n + half), None, NOW));
        cpu() - start
    };
    let time = std::thread::scope(|scope| {
        let other = scope.spawn(move || commit_half(1));
        let time = commit_half(0);
        other.join().map_or(time, |other| other.max(time))
    });
    println!("{:<28} {:>10.2}", "by two threads", millions(count, time));
    Ok(())
}

/// What single insertions take: one in a thousand makes a large shard grow.
fn single_commits(count: u32) -> Result<(), Box<dyn Error>> {
    let (table, mut times) = (table(count)?, Vec::with_capacity(count as usize));
    for n in 0..count {
        let start = cpu();
        assert!(table.commit(tuple(0, n), None, NOW), "there is room");
        times.push(cpu() - start);
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("one: p50 {:.1?}, p99.9 {:.1?}, p99.99 {:.1?}, longest {:.1?}", at(0.5), at(0.999), at(0.9999), at(1.0));
    Ok(())
}

fn lookups(count: u32) -> Result<(), Box<dyn Error>> {
    println!("\n{:<28} {:>10} {:>16} {:>12}", "lookups", "million/s", "ns each", "allocations");
    let table = table(count)?;
    let mut there = 0;
    for of in [1000.min(count), count / 10, count] {
        (there..of).for_each(|n| _ = table.commit(tuple(0, n), None, NOW));
        there = of;
        let before = ALLOC.made();
        let time = look_up(&table, of, 2_000_000);
        let (made, each) = (ALLOC.made() - before, time.as_nanos() as f64 / 2e6);
        println!("{:<28} {:>10.2} {each:>16.0} {made:>12}", format!("among {of}"), millions(2_000_000, time));
    }
    let time = std::thread::scope(|scope| {
        let table = &table;
        let other = scope.spawn(move || look_up(table, count, 2_000_000));
        let time = look_up(table, count, 2_000_000);
        other.join().map_or(time, |other| other.max(time))
    });
    println!("{:<28} {:>10.2}", "by two threads", millions(4_000_000, time));
    Ok(())
}

/// Time for lookups in random order, in either direction.
fn look_up(table: &BareTable, among: u32, lookups: u32) -> Duration {
    let mut random = Random::new(7);
    let start = cpu();
    for i in 0..lookups {
        let tuple = tuple(0, random.below(among));
        let tuple = if i & 1 == 0 { Some(tuple) } else { tuple.reversed() };
        assert!(tuple.is_some_and(|tuple| table.see(&tuple, NOW)), "it is there");
    }
    cpu() - start
}

/// Times of bursts of lookups, by the clock and of the CPU.
#[derive(Default)]
struct Bursts {
    wall: Vec<Duration>,
    own: Vec<Duration>,
}

impl Bursts {
    fn print(&mut self, name: &str) {
        let total: Duration = self.own.iter().sum();
        print!("{name:<28} {:>10.2}", millions(self.own.len() as u32 * BURST, total));
        for times in [&mut self.own, &mut self.wall] {
            times.sort_unstable();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
            print!(" {:>10.1?} {:>10.1?} {:>10.1?}", at(0.5), at(0.999), at(1.0));
        }
        println!();
    }
}

/// Bursts of lookups of established connections until `done`.
fn bursts(table: &BareTable, among: u32, now: Millis, done: impl Fn(usize) -> bool) -> Bursts {
    const MOST: usize = 1 << 23;
    let (mut random, mut times) = (Random::new(9), Bursts::default());
    times.wall.reserve(MOST);
    times.own.reserve(MOST);
    while !done(times.own.len()) && times.own.len() < MOST {
        let (start, own) = (Instant::now(), cpu());
        for _ in 0..BURST {
            assert!(table.see(&tuple(1, random.below(among)), now), "established");
        }
        times.own.push(cpu() - own);
        times.wall.push(start.elapsed());
    }
    times
}

/// Everything but some established connections expires, while these are looked up.
fn expiry(count: u32) -> Result<(), Box<dyn Error>> {
    print!("\n{:<28} {:>10}", "bursts of 32 lookups", "million/s");
    ["CPU: p50", "p99.9", "longest", "clock: p50", "p99.9", "longest"].iter().for_each(|head| print!(" {head:>10}"));
    println!();
    let (table, established) = (table(2 * count)?, count / 10);
    (0..established).for_each(|n| _ = table.commit_established(tuple(1, n), NOW));
    (0..count).for_each(|n| _ = table.commit(tuple(0, n), None, NOW));
    let later = Millis(NOW.0 + 1000 * u64::from(TimeoutClass::TcpSynSent.default_seconds()));
    bursts(&table, established, NOW, |bursts| bursts == 200_000).print("before");
    let (done, parts) = (AtomicBool::new(false), Barrier::new(2));
    let (mut during, times) = std::thread::scope(|scope| {
        let sweep = scope.spawn(|| {
            parts.wait();
            let mut times = Vec::new();
            while table.count() > established {
                let (start, own) = (Instant::now(), cpu());
                let pause = table.expire_part(later);
                times.push((cpu() - own, start));
                std::thread::sleep(pause.unwrap_or_default());
            }
            done.store(true, Ordering::Relaxed);
            times
        });
        parts.wait();
        let bursts = bursts(&table, established, later, |_| done.load(Ordering::Relaxed));
        (bursts, sweep.join().unwrap_or_default())
    });
    during.print("while all others expire");
    bursts(&table, established, later, |bursts| bursts == 200_000).print("after");
    let took = times.last().zip(times.first()).map(|(last, first)| last.1 - first.1).unwrap_or_default();
    let mut parts: Vec<_> = times.iter().map(|(time, _)| *time).collect();
    parts.sort_unstable();
    let at = |share: f64| parts[((parts.len() - 1) as f64 * share) as usize];
    let busy: Duration = parts.iter().sum();
    println!(
        "the sweep: {} parts in {took:.1?}, {busy:.1?} of CPU time; a part {:.1?}, p99 {:.1?}, longest {:.1?}; {:.0} ns an expiry",
        parts.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        busy.as_nanos() as f64 / f64::from(count)
    );
    Ok(())
}

/// A zone floods a table that is full, or its own share of one that is not.
fn flood(count: u32) -> Result<(), Box<dyn Error>> {
    println!("\n{:<28} {:>10} {:>16}", "a flood of", "million/s", "let in");
    for (name, established, max_connections, limit) in [
        ("a full table, half answered", count / 2, count, 0),
        ("a full table, all answered", count, count, 0),
        ("a zone at its limit", count / 2, 2 * count, count / 4),
    ] {
        let zone = ZoneSettings { limit: Some(limit), ..ZoneSettings::default() };
        let zones = [(0, zone)].into();
        let table = BareTable::new(CtSettings { max_connections, zones, ..CtSettings::default() })?;
        (0..established).for_each(|n| _ = table.commit_established(tuple(1, n), NOW));
        (established..count).for_each(|n| _ = table.commit(tuple(0, n), None, NOW));
        let (start, mut let_in, mut others) = (cpu(), 0_u32, (0_u32, 0_u32));
        for n in 0..count {
            // One millisecond a thousand: a flood of a million a second.
            let now = Millis(NOW.0 + u64::from(n / 1000));
            let_in += u32::from(table.commit(tuple(0, count + n), None, now));
            if n.is_multiple_of(100) {
                others.0 += u32::from(table.commit(tuple(2, n), None, now));
                others.1 += 1;
            }
        }
        let time = cpu() - start;
        let share = |(of, all): (u32, u32)| format!("{:.1} %", 100.0 * f64::from(of) / f64::from(all));
        println!("{name:<28} {:>10.2} {:>16}", millions(count, time), share((let_in, count)));
        println!("{:<28} {:>10} {:>16}", "  of another zone", "", share(others));
        let alive = (0..established).filter(|n| table.see(&tuple(1, *n), NOW)).count();
        println!("{:<28} {:>10} {:>16}", "  established, still there", "", share((alive as u32, established)));
        let time = look_up_established(&table, established);
        println!("{:<28} {:>10.2}", "  their lookups", millions(2_000_000, time));
    }
    Ok(())
}

/// Time for lookups of established connections while another thread floods.
fn look_up_established(table: &BareTable, established: u32) -> Duration {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_u32;
            while !done.load(Ordering::Relaxed) {
                table.commit(tuple(0, (1 << 27) + n), None, Millis(NOW.0 + u64::from(n / 1000)));
                n = (n + 1) % (1 << 26);
            }
        });
        let (mut random, start) = (Random::new(7), cpu());
        for _ in 0..2_000_000 {
            assert!(table.see(&tuple(1, random.below(established)), NOW), "established");
        }
        done.store(true, Ordering::Relaxed);
        cpu() - start
    })
}
