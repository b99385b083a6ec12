//! The same control connections through Open vSwitch and through us, packet by packet: what leaves must be the same
//! bytes, and its Ethernet addresses say what the tracker said.
//!
//! Not played, because it differs (the documentation of `conntrack/alg` says why): retransmissions, both directions
//! rewritten in one connection, and lines that are not whole. `EPRT` and `EPSV` over IPv4 are played by the programs
//! only: Open vSwitch knows them since 3.7.

use crate::{FTP, Service, TFTP, Translated};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::packet::checksum;
use sluice_flows::text::{Names, parse_flow};
use sluice_switch::{Config, FailMode};
use sluice_tests::ovs::Daemons;
use sluice_tests::switch::{Switch, wait_until};
use std::fs;
use std::net::IpAddr;

/// The client's address, the one that the server sees instead, the server's, and the one that the client sees instead.
const ADDRESSES: [[&str; 4]; 2] =
    [["10.0.0.1", "192.168.200.9", "10.0.0.2", "172.16.31.41"], ["fd00::1", "fd00:1::abcd", "fd00::2", "fd00:2::1234"]];
/// Bytes before the first record of a pcap file, and before each frame.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Which end sends: the number of its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client = 1,
    Server = 2,
}

impl End {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A pair of addresses and ports as one end knows them: its own, and the other's.
#[derive(Clone, Copy, Debug)]
struct Ends {
    own: (IpAddr, u16),
    other: (IpAddr, u16),
}

/// What both switches are.
struct Pair {
    ovs: Daemons,
    ours: Switch,
    /// By family: the addresses that the client knows, and those that the server knows.
    known: [[[IpAddr; 2]; 2]; 2],
    /// Bytes of each of OVS's pcap files that were read.
    read: [usize; 2],
}

fn flows(service: Service, translated: Translated) -> Vec<String> {
    let Service { proto, port, alg } = service;
    let mut flows = Vec::new();
    for (family, [_, client_seen, server, _]) in ADDRESSES.into_iter().enumerate() {
        let proto = format!("{proto}{}", ["", "6"][family]);
        let nat = match translated {
            // A bare `nat` would commit nothing in OVS.
            Translated::Nobody => String::new(),
            Translated::Client => format!("nat(src={client_seen}),"),
            Translated::Server => format!("nat(dst={server}),"),
            Translated::Both => panic!("one zone"),
        };
        let new = format!("table=1,priority=2,{proto},ct_state=+trk+new");
        flows.extend([
            format!("priority=2,{proto} actions=ct(table=1,zone=7,nat)"),
            format!(
                "{new}-rel,in_port=1,tp_dst={port} \
                 actions=ct(commit,table=2,zone=7,{nat}alg={alg},exec(set_field:0x55->ct_mark))"
            ),
            format!("{new}+rel actions=ct(commit,table=2,zone=7,nat)"),
        ]);
    }
    let told = "move:NXM_NX_CT_STATE[0..7]->NXM_OF_ETH_SRC[0..7],move:NXM_NX_CT_MARK[]->NXM_OF_ETH_DST[0..31]";
    flows.push("table=1,priority=1 actions=resubmit(,2)".to_owned());
    flows.push(format!("table=2,in_port=1 actions={told},output:2"));
    flows.push(format!("table=2,in_port=2 actions={told},output:1"));
    flows
}

impl Pair {
    fn start(service: Service, translated: Translated) -> Self {
        let flows = flows(service, translated);
        let ovs = Daemons::start(&[]);
        let mut args = "-- add-br br0 -- set bridge br0 datapath-type=dummy fail-mode=secure".to_owned();
        for no in [1, 2] {
            args += &format!(" -- add-port br0 p{no} -- set interface p{no} type=dummy ofport_request={no}");
            args += &format!(" options:tx_pcap=p{no}.pcap");
        }
        ovs.vsctl(&args.split(' ').collect::<Vec<_>>());
        let file = ovs.dir().join("flows.txt");
        fs::write(&file, flows.join("\n") + "\n").unwrap();
        ovs.run("ovs-ofctl", &["add-flows", "br0", &file.to_string_lossy()]).unwrap();
        let mut ours = Switch::start(Config::default());
        ours.bridge("br0", 2, FailMode::Secure);
        let parse = |flow: &String| parse_flow(flow, &Names::default()).unwrap_or_else(|e| panic!("{flow}: {e}")).value;
        let mods: Vec<_> = flows.iter().map(parse).map(FlowMod::add).collect();
        ours.datapath.apply_bundle("br0", &mods).unwrap();
        let known = ADDRESSES.map(|addresses| {
            let [client, client_seen, server, server_seen] = addresses.map(|text| text.parse().unwrap());
            match translated {
                Translated::Nobody => [[client, server], [client, server]],
                Translated::Client => [[client, server], [client_seen, server]],
                Translated::Server => [[client, server_seen], [client, server]],
                Translated::Both => panic!("one zone"),
            }
        });
        Self { ovs, ours, known, read: [FILE_HEADER; 2] }
    }

    /// The ends of a connection between these ports, as `end` knows them.
    fn ends(&self, v6: bool, end: End, [client, server]: [u16; 2]) -> Ends {
        let [client_known, server_known] = self.known[usize::from(v6)][end as usize - 1];
        match end {
            End::Client => Ends { own: (client_known, client), other: (server_known, server) },
            End::Server => Ends { own: (server_known, server), other: (client_known, client) },
        }
    }

    /// Sends a frame by both; what leaves by the other port must be the same.
    fn send(&mut self, from: End, frame: &[u8]) -> Vec<u8> {
        let mut hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        // OVS lets a frame grow as far as its text was long.
        hex += &" ".repeat(256);
        let to = from.other() as usize;
        self.ovs.appctl(&["netdev-dummy/receive", &format!("p{}", from as u16), &hex]);
        let (file, start) = (self.ovs.dir().join(format!("p{to}.pcap")), self.read[to - 1]);
        let mut theirs = Vec::new();
        wait_until("OVS sends the frame", || {
            let bytes = fs::read(&file).unwrap();
            let Some(header) = bytes.get(start..start + RECORD_HEADER) else { return false };
            let len = u32::from_le_bytes(*header[8..].first_chunk().unwrap()) as usize;
            theirs = bytes.get(start + RECORD_HEADER..start + RECORD_HEADER + len).unwrap_or_default().to_vec();
            !theirs.is_empty()
        });
        self.read[to - 1] += RECORD_HEADER + theirs.len();
        self.ours.send(from as u16, frame);
        self.ours.wait();
        let ours = self.ours.take(to as u16);
        assert_eq!(ours.len(), 1, "one frame leaves");
        assert_eq!(text(ours[0].bytes()), text(&theirs), "what we sent, what OVS sent: after {}", text(frame));
        theirs
    }
}

/// A frame to be read in a message: its headers in hexadecimal, its payload as it is.
fn text(frame: &[u8]) -> String {
    let hex: String = frame.iter().take(94).map(|byte| format!("{byte:02x}")).collect();
    format!("{hex} {:?}", String::from_utf8_lossy(&frame[frame.len().min(54)..]))
}

/// An Ethernet frame with an IP datagram.
fn datagram(ends: Ends, proto: u8, mut message: Vec<u8>) -> Vec<u8> {
    let len = message.len() as u16;
    let (header, pseudo) = match (ends.own.0, ends.other.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0];
            ip[2..4].copy_from_slice(&(len + 20).to_be_bytes());
            ip.extend([src.octets(), dst.octets()].concat());
            let sum = checksum::checksum(&ip).to_be_bytes();
            ip[10..12].copy_from_slice(&sum);
            ([&[8, 0], &*ip].concat(), checksum::pseudo_v4(src.octets(), dst.octets(), proto, len))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut ip = vec![0x60, 0, 0, 0, (len >> 8) as u8, len as u8, proto, 64];
            ip.extend([src.octets(), dst.octets()].concat());
            ([&[0x86, 0xdd], &*ip].concat(), checksum::pseudo_v6(src.octets(), dst.octets(), proto, len.into()))
        }
        _ => panic!("{ends:?}: two families"),
    };
    let at = if proto == 6 { 16 } else { 6 };
    let sum = checksum::udp(!checksum::add(pseudo, checksum::sum(&message)));
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &header, &message].concat()
}

fn udp(ends: Ends, payload: &[u8]) -> Vec<u8> {
    let mut message = [ends.own.1.to_be_bytes(), ends.other.1.to_be_bytes()].concat();
    message.extend((payload.len() as u16 + 8).to_be_bytes());
    message.extend([0, 0]);
    message.extend(payload);
    datagram(ends, 17, message)
}

/// A TCP connection of which each end counts what it has sent and what it has got.
struct Stream {
    v6: bool,
    /// The client's port and the server's.
    ports: [u16; 2],
    sent: [u32; 2],
    got: [u32; 2],
}

impl Stream {
    /// Begins one by a SYN of `from`: that frame as it left.
    fn open(pair: &mut Pair, v6: bool, ports: [u16; 2], from: End) -> (Self, Vec<u8>) {
        let mut stream = Self { v6, ports, sent: [1000, 900_000], got: [0, 0] };
        let first = stream.send(pair, from, SYN, "");
        stream.send(pair, from.other(), SYN | ACK, "");
        stream.send(pair, from, ACK, "");
        (stream, first)
    }

    fn send(&mut self, pair: &mut Pair, from: End, flags: u8, payload: &str) -> Vec<u8> {
        let ends = pair.ends(self.v6, from, self.ports);
        let (own, other) = (from as usize - 1, from.other() as usize - 1);
        let mut message = [ends.own.1.to_be_bytes(), ends.other.1.to_be_bytes()].concat();
        message.extend([self.sent[own].to_be_bytes(), self.got[own].to_be_bytes()].concat());
        message.extend([0x50, flags, 0x40, 0, 0, 0, 0, 0]);
        message.extend(payload.as_bytes());
        let frame = pair.send(from, &datagram(ends, 6, message));
        let at = if self.v6 { 54 } else { 34 };
        let sequence = u32::from_be_bytes(*frame[at + 4..].first_chunk().unwrap());
        let len = (frame.len() - at - 20) as u32;
        let extra = u32::from(flags & SYN != 0);
        self.sent[own] += payload.len() as u32 + extra;
        self.got[other] = sequence + len + extra;
        frame
    }

    /// A line, and its acknowledgement.
    fn say(&mut self, pair: &mut Pair, from: End, line: &str) -> Vec<u8> {
        let frame = self.send(pair, from, PSH | ACK, line);
        self.send(pair, from.other(), ACK, "");
        frame
    }
}

/// The connection state that a frame tells.
fn state(frame: &[u8]) -> u8 {
    frame[11]
}

const RELATED: u8 = 0x04;
const INVALID: u8 = 0x10;

fn commas(address: &str, port: u16) -> String {
    format!("{},{},{}", address.replace('.', ","), port >> 8, port & 0xff)
}

/// A conversation over IPv4.
fn ftp_v4(pair: &mut Pair) {
    let (mut control, _) = Stream::open(pair, false, [40_000, 21], End::Client);
    let [client, _, server, _] = ADDRESSES[0];
    control.say(pair, End::Server, "220 Welcome\r\n");
    // Only one direction is rewritten.
    for port in [5001, 5002] {
        let line = commas(client, port);
        control.say(pair, End::Client, &format!("PORT {line}\r\n"));
        control.say(pair, End::Server, "200 Fine\r\n");
        for from in [20, 2020] {
            let (mut data, first) = Stream::open(pair, false, [port, from], End::Server);
            assert_eq!(state(&first) & RELATED, RELATED);
            data.say(pair, End::Server, "some data");
        }
    }
    let line = commas(server, 6002);
    control.say(pair, End::Server, &format!("227 Entering Passive Mode ({line}).\r\n"));
    let (mut data, first) = Stream::open(pair, false, [50_000, 6002], End::Client);
    assert_eq!(state(&first) & RELATED, RELATED);
    data.say(pair, End::Server, "some data");
    data.say(pair, End::Client, "more data");
    // Another one's address; something impossible; and a line of no interest.
    let frame = control.say(pair, End::Client, "PORT 10,9,9,9,30,30\r\n");
    assert_eq!(state(&frame) & INVALID, INVALID);
    let frame = control.say(pair, End::Client, "PORT 10,0,0,1,300,30\r\n");
    assert_eq!(state(&frame) & INVALID, INVALID);
    control.say(pair, End::Client, "QUIT\r\n");
    // Nobody announced this one.
    let (_, first) = Stream::open(pair, false, [5009, 20], End::Server);
    assert_eq!(state(&first) & RELATED, 0);
}

fn ftp_v6(pair: &mut Pair) {
    let (mut control, _) = Stream::open(pair, true, [40_000, 21], End::Client);
    for port in [5001, 5002] {
        control.say(pair, End::Client, &format!("EPRT |2|{}|{port}|\r\n", ADDRESSES[1][0]));
        control.say(pair, End::Server, "200 Fine\r\n");
        let (mut data, first) = Stream::open(pair, true, [port, 20], End::Server);
        assert_eq!(state(&first) & RELATED, RELATED);
        data.say(pair, End::Server, "some data");
    }
    control.say(pair, End::Server, "229 Entering Extended Passive Mode (|||6001|)\r\n");
    let (mut data, first) = Stream::open(pair, true, [50_000, 6001], End::Client);
    assert_eq!(state(&first) & RELATED, RELATED);
    data.say(pair, End::Server, "some data");
    let frame = control.say(pair, End::Client, "EPRT |1|10.0.0.1|5001|\r\n");
    assert_eq!(state(&frame) & INVALID, INVALID);
    control.say(pair, End::Client, "QUIT\r\n");
}

#[test]
fn ftp_packets_leave_as_from_ovs() {
    if !Daemons::are_installed() {
        println!("skipped: Open vSwitch is not installed");
        return;
    }
    for translated in [Translated::Nobody, Translated::Client, Translated::Server] {
        let mut pair = Pair::start(FTP, translated);
        ftp_v4(&mut pair);
        ftp_v6(&mut pair);
    }
}

/// Lines that clients and servers say in other ways, each the first one of its connection.
const ODD_LINES: [(bool, End, &[&str]); 4] = [
    (
        false,
        End::Client,
        &[
            "PORT 10,0,0,1,4,210\n",
            "port  10,0,0,1,4,211\r\n",
            "PORT 10,0,0,1,4,212 \r\n",
            "PORT 10,0,0,1,4,213,1\r\n",
            "PORT 10,0,0,1,4,214x\r\n",
            "PORT 10,0,0,1,004,215\r\n",
            "PORT 192,168,200,9,4,216\r\n",
            "PORT 10,0,0,1,4,217\r\nLIST\r\n",
            "NOOP\r\nPORT 10,0,0,1,4,218\r\n",
            "PORT 10.0.0.1,4,210\r\n",
            "PORT 10, 0, 0, 1, 4, 210\r\n",
            "PORT 010,0,0,1,4,210\r\n",
            "PORT 10,0,0,1,256,1\r\n",
            "PORT 10,0,0,1,,1\r\n",
            "PORT 10,0,0,1\r\n",
            "PORT\r\n",
            "POR",
        ],
    ),
    (
        false,
        End::Server,
        &[
            "227 Entering Passive Mode 10,0,0,2,4,210\r\n",
            "227 =10,0,0,2,4,210\r\n",
            "227-Entering (10,0,0,2,4,210)\r\n",
            "227 Entering 2 (10,0,0,2,4,210)\r\n",
            "227 Entering\r\n",
            "227 (10,0,0,1,4,210)\r\n",
        ],
    ),
    (
        true,
        End::Client,
        &[
            "PORT 10,0,0,1,4,210\r\n",
            "EPRT  |2|fd00::1|5000|\r\n",
            "eprt |2|fd00:0::1|5001|\r\n",
            "EPRT !2!FD00::1!5002!\r\n",
            "EPRT |2|fd00::1|5003\r\n",
            "EPRT |2|fd00:1::abcd|5004|\r\n",
            "EPRT |2|fd00::1|70000|\r\n",
            "EPRT |2|fd00::7|5000|\r\n",
            "EPRT |3|fd00::1|5000|\r\n",
        ],
    ),
    (
        true,
        End::Server,
        &[
            "227 Entering Passive Mode 10,0,0,2,4,210\r\n",
            "229 Extended Passive Mode OK (|||5000|)\r\n",
            "229 Entering Extended Passive Mode (!!!5000!)\r\n",
            "229 Entering Extended Passive Mode (|||5000)\r\n",
            "229 Entering Extended Passive Mode |||5000|\r\n",
            "229 Entering Extended Passive Mode (|||70000|)\r\n",
        ],
    ),
];

#[test]
fn odd_lines_leave_as_from_ovs() {
    if !Daemons::are_installed() {
        println!("skipped: Open vSwitch is not installed");
        return;
    }
    let mut pair = Pair::start(FTP, Translated::Client);
    let lines = ODD_LINES.into_iter().flat_map(|(v6, from, lines)| lines.iter().map(move |line| (v6, from, line)));
    for (port, (v6, from, line)) in (41_000..).zip(lines) {
        let (mut control, _) = Stream::open(&mut pair, v6, [port, 21], End::Client);
        control.say(&mut pair, from, line);
        control.say(&mut pair, from, "something else\r\n");
    }
}

#[test]
fn tftp_packets_leave_as_from_ovs() {
    if !Daemons::are_installed() {
        println!("skipped: Open vSwitch is not installed");
        return;
    }
    for translated in [Translated::Nobody, Translated::Client, Translated::Server] {
        let mut pair = Pair::start(TFTP, translated);
        for v6 in [false, true] {
            let request = udp(pair.ends(v6, End::Client, [40_000, 69]), b"\0\x01file\0octet\0");
            pair.send(End::Client, &request);
            pair.send(End::Client, &request);
            let ports = [40_000, 3000];
            let answer = udp(pair.ends(v6, End::Server, ports), b"\0\x03\0\x01data");
            assert_eq!(state(&pair.send(End::Server, &answer)) & RELATED, RELATED);
            pair.send(End::Client, &udp(pair.ends(v6, End::Client, ports), b"\0\x04\0\x01"));
            pair.send(End::Server, &answer);
            let other = udp(pair.ends(v6, End::Server, [40_001, 3001]), b"\0\x03\0\x01data");
            assert_eq!(state(&pair.send(End::Server, &other)) & RELATED, 0);
        }
    }
}
