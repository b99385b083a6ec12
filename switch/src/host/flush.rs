//! Forgetting connections that the host's own tracking has and that lead somewhere else by now.
//!
//! What a connection is translated to is decided once, at its beginning. A client that goes on sending datagrams keeps its
//! connection alive, so when a port of the host comes, goes, or leads elsewhere, the connections by it are forgotten: the next
//! packet begins anew.

use super::HostError;
use super::netlink::NetlinkError;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::IpAddr;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: IpAddr,
    pub(super) target: IpAddr,
    pub(super) protocol: u8,
    pub(super) source_port: u16,
    pub(super) target_port: u16,
}

impl Ends {
    /// `None` for what has no addresses or no ports.
    fn of(tuples: &[Tuple]) -> Option<Self> {
        let (mut source, mut target, mut protocol, mut source_port, mut target_port) = (None, None, None, None, None);
        for tuple in tuples {
            match tuple {
                Tuple::Ip(parts) => parts.iter().for_each(|part| match part {
                    IPTuple::SourceAddress(address) => source = Some(*address),
                    IPTuple::DestinationAddress(address) => target = Some(*address),
                    _ => {}
                }),
                Tuple::Proto(parts) => parts.iter().for_each(|part| match part {
                    ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
                    ProtoTuple::SourcePort(port) => source_port = Some(*port),
                    ProtoTuple::DestinationPort(port) => target_port = Some(*port),
                    _ => {}
                }),
                _ => {}
            }
        }
        let (source, target, protocol) = (source?, target?, protocol?);
        Some(Self { source, target, protocol, source_port: source_port?, target_port: target_port? })
    }
}

/// Forgets the connections that `stale` says so of, by what their packets look like as they come and as their answers come.
/// Returns how many.
///
/// # Errors
/// The kernel does not let its connections be read.
pub(super) fn flush(stale: impl Fn(&Ends, &Ends) -> bool) -> Result<usize, HostError> {
    let failed = |source: io::Error| NetlinkError::new("forget connections", source);
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
    socket.bind_auto().map_err(failed)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
    let mut count = 0;
    for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
        let mut found = Vec::new();
        let all = ask(&mut socket, family, ConntrackMessage::Get(Vec::new()), NLM_F_DUMP).map_err(failed)?;
        for attributes in all {
            let ends =
                |wanted: fn(&ConntrackAttribute) -> Option<&Vec<Tuple>>| Ends::of(attributes.iter().find_map(wanted)?);
            let original = ends(|a| if let ConntrackAttribute::CtaTupleOrig(tuples) = a { Some(tuples) } else { None });
            let reply = ends(|a| if let ConntrackAttribute::CtaTupleReply(tuples) = a { Some(tuples) } else { None });
            let (Some(original), Some(reply)) = (original, reply) else { continue };
            if stale(&original, &reply) {
                found.extend(attributes.into_iter().find(|a| matches!(a, ConntrackAttribute::CtaTupleOrig(_))));
            }
        }
        count += found.len();
        for original in found {
            match ask(&mut socket, family, ConntrackMessage::Delete(vec![original]), NLM_F_ACK) {
                // It ended by itself.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                other => _ = other.map_err(failed)?,
            }
        }
    }
    Ok(count)
}

/// Sends a request, and returns the connections that are the answer.
fn ask(
    socket: &mut Socket,
    family: NetfilterProtoFamily,
    message: ConntrackMessage,
    flags: u16,
) -> io::Result<Vec<Vec<ConntrackAttribute>>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let invalid = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).map_err(|error| invalid(&error))?;
            // A message is padded to four bytes.
            let len = (message.header.length as usize).next_multiple_of(4).clamp(16, rest.len().max(16));
            rest = rest.get(len..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) => found.push(attributes),
                _ => {}
            }
        }
    }
}
