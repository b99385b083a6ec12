//! A table of a million connections: memory, commits, lookups, expiry beside lookups, and a flood of a full table.
//!
//! Prints one table for each; `cargo bench -p sluice-benches --bench conntrack -- 100000` does it with another number.
//! What one thread does is timed as it is, on the wall clock: pauses are what is looked for. On a machine that has
//! other work, the longest times are those of the scheduler; the row without a sweep tells how long these are.

use sluice_benches::acl::Random;
use sluice_benches::alloc::CountingAlloc;
use sluice_flows::rule::Millis;
use sluice_switch::conntrack::measure::BareTable;
use sluice_switch::conntrack::{CtSettings, TimeoutClass, Tuple};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

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
    println!("\n{:<28} {:>10} {:>16}", "new connections", "million/s", "longest");
    for (name, full) in [("into an empty table", false), ("again, after all expired", true)] {
        let table = table(count)?;
        if full {
            (0..count).for_each(|n| _ = table.commit(tuple(0, n), None, NOW));
        }
        let now = if full { Millis(NOW.0 + 100_000_000) } else { NOW };
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        let mut last = start;
        for n in 0..count {
            assert!(table.commit(tuple(0, n), None, now), "there is room");
            let time = Instant::now();
            longest = longest.max(time - last);
            last = time;
        }
        println!("{name:<28} {:>10.2} {longest:>16.1?}", millions(count, last - start));
    }
    let (table, barrier) = (table(count)?, Barrier::new(2));
    let (table, barrier) = (&table, &barrier);
    let commit_half = move |half: u32| {
        barrier.wait();
        let start = Instant::now();
        (0..count / 2).for_each(|n| _ = table.commit(tuple(0, 2 * n + half), None, NOW));
        start.elapsed()
    };
    let time = std::thread::scope(|scope| {
        let other = scope.spawn(move || commit_half(1));
        let time = commit_half(0);
        other.join().map_or(time, |other| other.max(time))
    });
    println!("{:<28} {:>10.2}", "by two threads", millions(count, time));
    Ok(())
}

fn lookups(count: u32) -> Result<(), Box<dyn Error>> {
    println!("\n{:<28} {:>10} {:>16}", "lookups", "million/s", "ns each");
    let table = table(count)?;
    let mut there = 0;
    for of in [1000.min(count), count / 10, count] {
        (there..of).for_each(|n| _ = table.commit(tuple(0, n), None, NOW));
        there = of;
        let time = look_up(&table, of, 2_000_000);
        let name = format!("among {of}");
        println!("{name:<28} {:>10.2} {:>16.0}", millions(2_000_000, time), time.as_nanos() as f64 / 2e6);
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
    let start = Instant::now();
    for i in 0..lookups {
        let tuple = tuple(0, random.below(among));
        let tuple = if i & 1 == 0 { Some(tuple) } else { tuple.reversed() };
        assert!(tuple.is_some_and(|tuple| table.see(&tuple, NOW)), "it is there");
    }
    start.elapsed()
}

/// Times of bursts of lookups.
#[derive(Default)]
struct Bursts(Vec<Duration>);

impl Bursts {
    fn print(&mut self, name: &str) {
        self.0.sort_unstable();
        let at = |share: f64| self.0[((self.0.len() - 1) as f64 * share) as usize];
        let total: Duration = self.0.iter().sum();
        print!("{name:<28} {:>10.2}", millions(self.0.len() as u32 * BURST, total));
        println!(" {:>10.1?} {:>10.1?} {:>10.1?} {:>10.1?}", at(0.5), at(0.999), at(0.9999), at(1.0));
    }
}

/// Bursts of lookups of established connections until `done`.
fn bursts(table: &BareTable, among: u32, now: Millis, done: impl Fn(usize) -> bool) -> Bursts {
    let (mut random, mut times) = (Random::new(9), Vec::with_capacity(1 << 24));
    while !done(times.len()) && times.len() < times.capacity() {
        let start = Instant::now();
        for _ in 0..BURST {
            assert!(table.see(&tuple(1, random.below(among)), now), "established");
        }
        times.push(start.elapsed());
    }
    Bursts(times)
}

/// Everything but some established connections expires, while these are looked up.
fn expiry(count: u32) -> Result<(), Box<dyn Error>> {
    let head = ["million/s", "p50", "p99.9", "p99.99", "longest"];
    println!(
        "\n{:<28} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "bursts of 32 lookups", head[0], head[1], head[2], head[3], head[4]
    );
    let (table, established) = (table(2 * count)?, count / 10);
    (0..established).for_each(|n| _ = table.commit_established(tuple(1, n), NOW));
    (0..count).for_each(|n| _ = table.commit(tuple(0, n), None, NOW));
    let later = Millis(NOW.0 + 1000 * u64::from(TimeoutClass::TcpSynSent.default_seconds()));
    bursts(&table, established, NOW, |bursts| bursts == 1_000_000).print("before");
    let (done, parts) = (AtomicBool::new(false), Barrier::new(2));
    let (mut during, times) = std::thread::scope(|scope| {
        let sweep = scope.spawn(|| {
            parts.wait();
            let mut times = Vec::new();
            while table.count() > established {
                let start = Instant::now();
                let pause = table.expire_part(later);
                times.push((start.elapsed(), start));
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
    bursts(&table, established, later, |bursts| bursts == 1_000_000).print("after");
    let took = times.last().zip(times.first()).map(|(last, first)| last.1 - first.1).unwrap_or_default();
    let longest = times.iter().map(|(time, _)| *time).max().unwrap_or_default();
    let busy: Duration = times.iter().map(|(time, _)| *time).sum();
    println!(
        "the sweep: {} parts in {took:.1?}, {busy:.1?} of work, longest part {longest:.1?}; {:.0} ns an expiry",
        times.len(),
        busy.as_nanos() as f64 / f64::from(count)
    );
    Ok(())
}

/// A zone floods a full table that is half established.
fn flood(count: u32) -> Result<(), Box<dyn Error>> {
    println!("\n{:<28} {:>10} {:>16}", "a flood of a full table", "million/s", "let in");
    for (name, established) in [("half of it established", count / 2), ("all of it established", count)] {
        let table = table(count)?;
        (0..established).for_each(|n| _ = table.commit_established(tuple(1, n), NOW));
        (established..count).for_each(|n| _ = table.commit(tuple(0, n), None, NOW));
        let (start, mut let_in, mut others) = (Instant::now(), 0_u32, (0_u32, 0_u32));
        for n in 0..count {
            // One millisecond a thousand: a flood of a million a second.
            let now = Millis(NOW.0 + u64::from(n / 1000));
            let_in += u32::from(table.commit(tuple(0, count + n), None, now));
            if n.is_multiple_of(100) {
                others.0 += u32::from(table.commit(tuple(2, n), None, now));
                others.1 += 1;
            }
        }
        let time = start.elapsed();
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
                table.commit(tuple(3, n), None, Millis(NOW.0 + u64::from(n / 1000)));
                n = n.wrapping_add(1);
            }
        });
        let mut random = Random::new(7);
        let start = Instant::now();
        for _ in 0..2_000_000 {
            assert!(table.see(&tuple(1, random.below(established)), NOW), "established");
        }
        done.store(true, Ordering::Relaxed);
        start.elapsed()
    })
}
