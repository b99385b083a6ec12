//! `sluice lab ping`: every host pings every other, all at once.
//!
//! One thread per host enters its namespace and sends ICMP echo requests on a raw socket of its own (RFC 792, RFC 4443),
//! so no `ping` program is needed. Each host starts with its right-hand neighbour and has a few requests outstanding, so
//! that a large lab does not begin with every host asking for every address at once. More than a batch of pairs take
//! turns, and what a batch left in the kernel's neighbour table is removed before the next.

mod pinger;

use super::Target;
use super::enter::{Door, enter_network};
use super::state::State;
use super::topology::resolved::Host;
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use nix::net::if_::if_nametoindex;
use pinger::Pinger;
use serde::Serialize;
use sluice_switch::host::netlink::Netlink;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

/// Pairs that ping at one time. Each may take two entries of the kernel's neighbour table, which has room for 1024 in
/// all namespaces of the machine together (`net.ipv4.neigh.default.gc_thresh3`) and drops packets when it is full.
const BATCH: usize = 256;
/// Hosts up to which the matrix is shown.
const MATRIX_MAX: usize = 16;

/// Arguments of `sluice lab ping`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab ping                  every pair of hosts
  sluice lab ping h1 h2            these two, both ways
  sluice lab ping -c 5 -o json     five requests a pair, for a program

Exit code 1 if any request was lost.")]
pub(crate) struct Ping {
    /// Hosts to ping between; all if none is named
    hosts: Vec<String>,
    #[command(flatten)]
    target: Target,
    /// Requests per pair
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=60))]
    count: u16,
    /// How long to wait for each answer, in seconds
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60), value_name = "SECONDS")]
    timeout: u64,
}

/// What became of the requests from one host to another.
#[derive(Clone, Debug, Serialize)]
struct Pair {
    from: String,
    to: String,
    address: IpAddr,
    sent: u16,
    received: u16,
    /// Shortest round trip.
    rtt_min_ns: Option<u64>,
    /// Mean round trip.
    rtt_avg_ns: Option<u64>,
    /// Why nothing could be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    rtt_sum_ns: u64,
}

impl Pair {
    fn new(from: &str, to: &str, address: IpAddr) -> Self {
        let (from, to) = (from.to_owned(), to.to_owned());
        Self { from, to, address, sent: 0, received: 0, rtt_min_ns: None, rtt_avg_ns: None, error: None, rtt_sum_ns: 0 }
    }

    fn lost(&self) -> u16 {
        self.sent - self.received
    }

    fn answered(&mut self, rtt: Duration) {
        let rtt = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX);
        self.received += 1;
        self.rtt_sum_ns = self.rtt_sum_ns.saturating_add(rtt);
        self.rtt_min_ns = Some(self.rtt_min_ns.map_or(rtt, |least| least.min(rtt)));
        self.rtt_avg_ns = Some(self.rtt_sum_ns / u64::from(self.received));
    }
}

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    pairs: &'a [Pair],
    reachable: usize,
    lost: u32,
}

/// Pings.
pub(crate) fn run(args: &Ping, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let (name, state) = super::joined(args.target.lab.as_deref())?;
    let hosts = chosen(&state, &args.hosts)?;
    let namespaces = hosts.iter().map(|h| state.open_namespace(h)).collect::<Result<Vec<_>, _>>()?;
    // Only the user namespace is joined here; each thread joins its host's network namespace.
    let _door = Door::open(&state)?;
    let pairs = ping_all(&state, &hosts, &namespaces, args)?;
    let lost = pairs.iter().map(|p| u32::from(p.lost())).sum();
    let reachable = pairs.iter().filter(|p| p.received > 0).count();
    match format {
        Format::Json => out.json(&Report { lab: &name, pairs: &pairs, reachable, lost })?,
        _ => show(&hosts, &pairs, format == Format::Wide || hosts.len() <= MATRIX_MAX, out)?,
    }
    Ok(if lost == 0 { Exit::Yes } else { Exit::No })
}

fn chosen(state: &State, names: &[String]) -> Result<Vec<String>, Failure> {
    // A host that only gets copies from a switch has no address.
    let has_address = |host: &Host| host.interfaces.iter().any(|interface| !interface.addresses.is_empty());
    if names.is_empty() {
        let to_ask = |host: &&Host| has_address(host) && state.is_there(&host.name);
        return Ok(state.topology.hosts.iter().filter(to_ask).map(|host| host.name.clone()).collect());
    }
    for (index, name) in names.iter().enumerate() {
        super::known_host(state, name)?;
        if !state.topology.host(name).is_some_and(has_address) {
            return Err(Failure::usage(format!("{name} has no address")));
        }
        if names[..index].contains(name) {
            return Err(Failure::usage(format!("{name} is named twice")));
        }
    }
    if names.len() == 1 {
        return Err(Failure::usage("a ping needs two hosts").next(format!("sluice lab ping {} OTHER", names[0])));
    }
    Ok(names.to_vec())
}

/// What one host does at one time.
struct Share {
    pairs: Vec<Pair>,
    /// Addresses of the hosts that it talks with, either way.
    met: Vec<IpAddr>,
}

/// Who pings whom when: for each host, its share of each batch.
fn plan(state: &State, hosts: &[String]) -> Vec<Vec<Share>> {
    let addresses = |name: &String| -> Vec<IpAddr> {
        let host = state.topology.host(name);
        let all = || host.iter().flat_map(|h| &h.interfaces).flat_map(|i| &i.addresses).map(|a| a.addr());
        // One address of each version stands for the host.
        [all().find(IpAddr::is_ipv4), all().find(IpAddr::is_ipv6)].into_iter().flatten().collect()
    };
    let addresses: Vec<_> = hosts.iter().map(addresses).collect();
    let mut shares: Vec<Vec<Share>> = hosts.iter().map(|_| Vec::new()).collect();
    let mut room = 0;
    for step in 1..hosts.len() {
        for from in 0..hosts.len() {
            let to = (from + step) % hosts.len();
            for address in &addresses[to] {
                let Some(own) = addresses[from].iter().find(|own| own.is_ipv4() == address.is_ipv4()) else { continue };
                if room == 0 {
                    shares.iter_mut().for_each(|s| s.push(Share { pairs: Vec::new(), met: Vec::new() }));
                    room = BATCH;
                }
                room -= 1;
                if let Some(share) = shares[from].last_mut() {
                    share.pairs.push(Pair::new(&hosts[from], &hosts[to], *address));
                    share.met.push(*address);
                }
                shares[to].last_mut().into_iter().for_each(|share| share.met.push(*own));
            }
        }
    }
    shares
}

fn ping_all(state: &State, hosts: &[String], namespaces: &[OwnedFd], args: &Ping) -> Result<Vec<Pair>, Failure> {
    let barrier = Barrier::new(hosts.len());
    let results: Vec<_> = thread::scope(|scope| {
        let shares = plan(state, hosts).into_iter().zip(namespaces);
        let threads: Vec<_> =
            shares.map(|(shares, netns)| scope.spawn(|| ping_from(netns, shares, args, &barrier))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut pairs = Vec::new();
    for (host, result) in hosts.iter().zip(results) {
        pairs.extend(result.map_err(|error| Failure::new(format!("cannot ping from {host}: {error}")))?);
    }
    let place = |name: &String| hosts.iter().position(|host| host == name);
    pairs.sort_by_key(|pair| (place(&pair.from), place(&pair.to), pair.address));
    Ok(pairs)
}

/// Pings from one host, batch by batch, in step with all other hosts whatever happens.
fn ping_from(netns: &OwnedFd, shares: Vec<Share>, args: &Ping, barrier: &Barrier) -> io::Result<Vec<Pair>> {
    let wanted = [true, false].map(|v4| shares.iter().flat_map(|s| &s.pairs).any(|p| p.address.is_ipv4() == v4));
    let mut tools = enter_network(netns).and_then(|()| {
        let netlink = Netlink::open().map_err(io::Error::other)?;
        Ok((Pinger::open(wanted, Duration::from_secs(args.timeout))?, netlink, if_nametoindex("eth0").unwrap_or(0)))
    });
    let several = shares.len() > 1;
    let mut pairs = Vec::new();
    for mut share in shares {
        barrier.wait();
        tools = tools.and_then(|mut tools| tools.0.run(&mut share.pairs, args.count).map(|()| tools));
        pairs.append(&mut share.pairs);
        if several {
            // Nobody may need an address any more that is forgotten now.
            barrier.wait();
            if let Ok((_, netlink, index)) = &mut tools {
                share.met.iter().for_each(|ip| netlink.forget_neighbour(*index, *ip));
            }
        }
    }
    tools.map(|_| pairs)
}

fn show(hosts: &[String], pairs: &[Pair], matrix: bool, out: &mut Output) -> Result<(), Failure> {
    let families = [(true, "IPv4"), (false, "IPv6")]
        .map(|(v4, name)| (name, pairs.iter().filter(|p| p.address.is_ipv4() == v4).collect::<Vec<_>>()));
    let several = families.iter().all(|(_, pairs)| !pairs.is_empty());
    for (name, pairs) in families.iter().filter(|(_, pairs)| !pairs.is_empty() && matrix) {
        if several {
            out.line(name)?;
        }
        out.table(&matrix_of(hosts, pairs))?;
    }
    for pair in pairs.iter().filter(|p| p.lost() > 0 && (!matrix || p.error.is_some())) {
        let why = pair.error.clone().unwrap_or_else(|| format!("{} of {} lost", pair.lost(), pair.sent));
        out.line(format!("{} -> {} ({}): {why}", pair.from, pair.to, pair.address))?;
    }
    let reachable = pairs.iter().filter(|p| p.received > 0).count();
    let lost: u32 = pairs.iter().map(|p| u32::from(p.lost())).sum();
    out.line(format!(
        "{reachable}/{} pairs reachable, {lost} {} lost",
        pairs.len(),
        if lost == 1 { "packet" } else { "packets" }
    ))?;
    Ok(())
}

fn matrix_of(hosts: &[String], pairs: &[&Pair]) -> Table {
    let mut table = Table::new(std::iter::once(Cell::from("")).chain(hosts.iter().map(|h| Cell::right(h.as_str()))));
    for from in hosts {
        let cell = |to: &String| match pairs.iter().find(|p| p.from == *from && p.to == *to) {
            None => Cell::right("-"),
            Some(pair) => match pair.rtt_avg_ns {
                None => Cell::right("lost").tone(Tone::Bad),
                Some(rtt) if pair.lost() > 0 => Cell::right(millis(rtt)).tone(Tone::Warn),
                Some(rtt) => Cell::right(millis(rtt)).tone(Tone::Good),
            },
        };
        table.row(std::iter::once(Cell::from(from.as_str())).chain(hosts.iter().map(cell)));
    }
    table
}

fn millis(ns: u64) -> String {
    format!("{:.1} ms", ns as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_counts_what_came_back() {
        let mut pair = Pair::new("h1", "h2", IpAddr::from([10, 0, 0, 2]));
        pair.sent = 3;
        pair.answered(Duration::from_micros(300));
        pair.answered(Duration::from_micros(100));
        assert_eq!((pair.lost(), pair.rtt_min_ns, pair.rtt_avg_ns), (1, Some(100_000), Some(200_000)));
        assert_eq!(millis(200_000), "0.2 ms");
    }
}
