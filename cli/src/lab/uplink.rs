//! The uplink: how frames of a lab get to the machine's network.
//!
//! With translation the port is a TAP, whose other side is an interface of the machine with the hosts' gateway addresses.
//! What comes in by it leaves behind the machine's own addresses, by rules in a table of nftables that belongs to the
//! process which made it (`flags owner`, Linux 5.12): the kernel takes the table away when that `nft` ends, in whatever
//! way, as it takes the TAP away. Nothing is left on the machine.
//!
//! Everything here happens on the thread that stays in the machine's network namespace.

use super::switching::spec;
use super::topology::resolved::INTERFACE_NAME_MAX;
use super::topology::resolved::uplink::{Outside, Uplink};
use crate::failure::Failure;
use ipnet::IpNet;
use sluice_switch::PortDevice;
use sluice_switch::host::forward_obstacles;
use sluice_switch::host::netlink::{Netlink, NetlinkError};
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long rules may take to be there.
const PATIENCE: Duration = Duration::from_secs(5);

/// What makes the machine translate for a lab: an `nft` that owns the table, for as long as this process lives.
pub(crate) struct Rules {
    _nft: Child,
}

/// Opens the port, and has the machine translate if that is wanted.
///
/// # Errors
/// What the machine lacks or has in the way.
pub(super) fn open(link: &Uplink, lab: &str, workers: usize) -> Result<(PortDevice, Option<Rules>), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("the uplink at {}: {error}", link.switch));
    let device = |kind, options: &[(&str, String)]| {
        spec(kind, options)?.open(&link.port_name(), workers).map_err(|error| failed(&error))
    };
    let (mac, addresses) = match &link.outside {
        Outside::Device(name) => return Ok((device("af-packet", &[("dev", name.clone())])?, None)),
        Outside::Nat { mac, addresses } => (mac, addresses),
    };
    let mut netlink = Netlink::open().map_err(|error| failed(&error))?;
    check_addresses(&mut netlink, addresses)?;
    check_forwarding(addresses)?;
    let name = interface_name(lab);
    let options = [("dev", name.clone()), ("mac", mac.to_string()), ("mtu", link.mtu.to_string())];
    let port = device("tap", &options)?;
    set_up(&mut netlink, &name, addresses).map_err(|error| failed(&error))?;
    Ok((port, Some(Rules::add(&name, addresses)?)))
}

/// The machine's interface of a lab.
fn interface_name(lab: &str) -> String {
    let mut name = format!("up-{lab}");
    name.truncate(INTERFACE_NAME_MAX);
    name
}

fn set_up(netlink: &mut Netlink, name: &str, addresses: &[IpNet]) -> Result<(), NetlinkError> {
    let gone = || NetlinkError::new("find the interface", io::Error::from(io::ErrorKind::NotFound));
    let index = netlink.link(name)?.ok_or_else(gone)?.index;
    netlink.set_up(index)?;
    addresses.iter().try_for_each(|address| netlink.add_address(index, *address))
}

/// Refuses a lab whose network the machine is in already: its routes would lead into the lab.
fn check_addresses(netlink: &mut Netlink, addresses: &[IpNet]) -> Result<(), Failure> {
    let there = netlink.addresses().map_err(|error| Failure::new(error.to_string()))?;
    let overlap =
        |own: &IpNet| there.iter().map(|there| there.address).find(|net| own.contains(net) || net.contains(own));
    match addresses.iter().find_map(|own| Some((own, overlap(own)?))) {
        None => Ok(()),
        Some((own, there)) => Err(Failure::new(format!(
            "the machine has the address {there} already, so {} cannot be the lab's too",
            own.trunc()
        ))
        .why("`uplink: {mode: nat}` gives the machine an address in the lab's subnet")
        .next("give the lab another one: defaults: {subnet: 10.77.0.0/24}, or `subnet:` of the VLAN")),
    }
}

/// Refuses a machine that forwards nothing, or only what a firewall was told of.
fn check_forwarding(addresses: &[IpNet]) -> Result<(), Failure> {
    let settings = [(true, "net.ipv4.ip_forward"), (false, "net.ipv6.conf.all.forwarding")];
    for (_, setting) in settings.iter().filter(|(v4, _)| addresses.iter().any(|net| net.addr().is_ipv4() == *v4)) {
        let file = format!("/proc/sys/{}", setting.replace('.', "/"));
        let value = std::fs::read_to_string(&file).unwrap_or_default();
        if value.trim() != "1" {
            return Err(Failure::new(format!("the machine forwards no packets: {setting} is {}", value.trim()))
                .why("hosts reach what is behind the machine only if it forwards; a lab changes no setting of the machine")
                .next(format!("sudo sysctl -w {setting}=1")));
        }
    }
    match forward_obstacles().first() {
        None => Ok(()),
        Some(chain) => Err(Failure::new(format!(
            "the machine's firewall drops what is forwarded: nftables chain {chain}"
        ))
        .why("that chain has the policy drop, and no rule of a lab can change what it decides")
        .next(
            "have it accept interfaces up-*, both ways: iptables -I FORWARD -i up-+ -j ACCEPT, and the same with -o",
        )),
    }
}

impl Rules {
    /// Adds the rules and waits until they are in force.
    fn add(link: &str, addresses: &[IpNet]) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::new(format!("cannot have `nft` translate for the lab: {error}"))
                .why("`uplink: {mode: nat}` needs the program nft (Debian's package nftables)")
                .next("sudo apt-get install nftables, or leave `uplink:` out")
        };
        let mut nft = Command::new("nft");
        let nft = nft.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut nft = nft.spawn().map_err(failed)?;
        let input = nft.stdin.as_mut().ok_or_else(|| failed(io::Error::from(io::ErrorKind::BrokenPipe)))?;
        input.write_all(rules(link, addresses).as_bytes()).map_err(failed)?;
        let begin = Instant::now();
        while !are_there(link).map_err(failed)? {
            if begin.elapsed() > PATIENCE || !matches!(nft.try_wait(), Ok(None)) {
                // It may have ended already.
                let _ = nft.kill();
                let mut said = String::new();
                nft.stderr.take().map(|mut from| from.read_to_string(&mut said)).transpose().map_err(failed)?;
                return Err(Failure::new("nft did not take the rules of the uplink").why(said.trim().to_owned()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { _nft: nft })
    }
}

/// The last line is what makes the table whole.
fn rules(link: &str, addresses: &[IpNet]) -> String {
    let mut lines = vec![
        format!("add table inet {link} {{ flags owner; }}"),
        format!("add chain inet {link} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}"),
        format!("add chain inet {link} forward {{ type filter hook forward priority filter; policy accept; }}"),
        format!("add rule inet {link} forward oifname \"{link}\" ct state established,related accept"),
        // As behind any translation: nobody outside begins.
        format!("add rule inet {link} forward oifname \"{link}\" drop"),
    ];
    lines.extend(addresses.iter().map(|address| {
        let family = if address.addr().is_ipv4() { "ip" } else { "ip6" };
        let from = address.trunc();
        format!("add rule inet {link} postrouting {family} saddr {from} oifname != \"{link}\" masquerade")
    }));
    lines.push(format!("add chain inet {link} {WHOLE}"));
    lines.join("\n") + "\n"
}

/// The chain that says that all rules before it are there.
const WHOLE: &str = "whole";

fn are_there(link: &str) -> io::Result<bool> {
    let mut nft = Command::new("nft");
    let listed =
        nft.args(["list", "chain", "inet", link, WHOLE]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(listed.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_named_after_its_lab_as_far_as_that_goes() {
        assert_eq!(interface_name("office"), "up-office");
        assert_eq!(interface_name("a-very-long-name"), "up-a-very-long-");
    }
}
