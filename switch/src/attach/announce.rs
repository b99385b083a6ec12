//! Telling the neighbours of an attachment where its addresses are, as if it had told them itself: after a restart no switch
//! on the way has to wait for the container to speak, and whoever knew another station by an address forgets that one.
//!
//! A gratuitous ARP request (RFC 5227, 3) for each IPv4 address and an unsolicited neighbour advertisement (RFC 4861, 7.2.6)
//! for each IPv6 address, three times. They enter the bridge by the attachment's port and take the way that its own frames
//! take, guard included. How many are sent at a time is bounded; others wait.

use super::known::Record;
use crate::Datapath;
use etherparse::{ArpEthIpv4Packet, ArpOperation, EtherType, IpHeaders, IpNumber, Ipv6Header, PacketBuilder};
use sluice_flows::PortNo;
use sluice_flows::action::Action;
use sluice_flows::bridge::Model;
use sluice_flows::packet::Frame;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often everything is told.
pub(super) const TIMES: u8 = 3;
/// Between one time and the next.
const PAUSE: Duration = Duration::from_millis(50);
/// Most frames that are sent in that time: each goes to all ports of its bridge, so that a thousand attachments would take
/// a worker for seconds if all told of themselves at once.
const BUDGET: usize = 2000;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// It replaces what was known (RFC 4861, 4.4).
const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];
/// The option with the hardware address of the target, of 8 bytes.
const TARGET_ADDRESS: [u8; 2] = [2, 1];
const ND_HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const BROADCAST: [u8; 6] = [0xff; 6];

/// What is to be told, and the thread that does it while there is anything.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Attachments, and how often each is still to be told of; who was told of comes last.
    records: VecDeque<(Arc<Record>, u8)>,
    is_running: bool,
}

impl Announcer {
    /// Has the addresses of an attachment that is in force told so many times, in the background.
    pub(super) fn announce(&self, datapath: &Datapath, record: Arc<Record>, times: u8) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.records.push_back((record, times));
        if std::mem::replace(&mut waiting.is_running, true) {
            return;
        }
        drop(waiting);
        let (datapath, waiting) = (datapath.downgrade(), Arc::clone(&self.waiting));
        let run = move || {
            loop {
                let Some(datapath) = datapath.upgrade() else { return };
                let due = waiting.lock().unwrap_or_else(PoisonError::into_inner).due(&datapath.model());
                due.iter().for_each(|record| tell(&datapath, record));
                drop(datapath);
                thread::sleep(PAUSE);
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.records.is_empty() {
                    waiting.is_running = false;
                    return;
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("sluice-announce".to_owned()).spawn(run) {
            tracing::warn!(%error, "the addresses of attachments are not announced");
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_running = false;
        }
    }
}

impl Waiting {
    /// Whom to tell of now: each once, and the first at least.
    fn due(&mut self, model: &Model) -> Vec<Arc<Record>> {
        let (mut due, mut frames) = (Vec::new(), 0);
        for _ in 0..self.records.len() {
            let Some((record, times)) = self.records.pop_front() else { break };
            let ports = model.bridge_named(&record.bridge).map_or(0, |bridge| bridge.ports.len());
            frames += ports.max(1) * record.spec.addresses.len();
            due.push(Arc::clone(&record));
            if times > 1 {
                self.records.push_back((record, times - 1));
            }
            if frames >= BUDGET {
                break;
            }
        }
        due
    }
}

/// Sends what tells of an attachment's addresses. One that is gone by now is none of our business any more.
fn tell(datapath: &Datapath, record: &Record) {
    let Some(port) = record.port_no() else { return };
    let is_there = datapath
        .model()
        .bridge_named(&record.bridge)
        .and_then(|bridge| bridge.ports.get(&port))
        .is_some_and(|there| *there.name == record.spec.port);
    if !is_there {
        return;
    }
    for address in &record.spec.addresses {
        let frame = match address.addr() {
            IpAddr::V4(address) => gratuitous_arp(record.spec.mac, address),
            IpAddr::V6(address) => advertisement(record.spec.mac, address),
        };
        if let Err(error) =
            datapath.packet_out(&record.bridge, port, Frame::from_bytes(&frame), [Action::Output(PortNo::TABLE)])
        {
            tracing::debug!(attachment = %record.spec.key, %error, "an address was not announced");
        }
    }
}

fn gratuitous_arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac,
        sender_ipv4: address.octets(),
        target_mac: [0; 6],
        target_ipv4: address.octets(),
    };
    [&BROADCAST[..], &mac, &EtherType::ARP.0.to_be_bytes(), &packet.to_bytes()].concat()
}

fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let ip = Ipv6Header {
        source: address.octets(),
        destination: ALL_NODES.octets(),
        hop_limit: ND_HOP_LIMIT,
        next_header: IpNumber::IPV6_ICMP,
        ..Ipv6Header::default()
    };
    let body = [&address.octets()[..], &TARGET_ADDRESS, &mac].concat();
    let builder = PacketBuilder::ethernet2(mac, ALL_NODES_MAC).ip(IpHeaders::Ipv6(ip, Default::default())).icmpv6_raw(
        NEIGHBOUR_ADVERTISEMENT,
        0,
        OVERRIDE,
    );
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    // It fails only for a body that is too long.
    if builder.write_to_vec(&mut frame, &body).is_err() {
        frame.clear();
    }
    frame
}
