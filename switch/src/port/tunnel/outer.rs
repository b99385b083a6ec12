//! What goes around a frame: where to, and the tunnel's header. Made from what the port says, and from what the flow
//! does where the port leaves it to flows.

use super::TunnelOptions;
use super::sys::send::Departure;
use sluice_flows::DropReason;
use sluice_flows::packet::Frame;
use sluice_flows::packet::tunnel::{MAX_HEADER_LEN, Params, Payload, ecn, entropy, gre, header};
use sluice_flows::tunnel::{Byte, Part, TlvMap, TunnelKey, TunnelKind};
use std::net::{IpAddr, SocketAddr};

const ETH_LEN: usize = 14;
const UDP_LEN: usize = 8;

/// What goes around one frame.
pub(crate) struct Outer {
    pub(crate) departure: Departure,
    /// What the frame is sent as: as it is, or as the IP packet in it.
    pub(crate) payload: Payload,
    /// The key.
    pub(crate) id: u64,
    /// Bytes at the start of the frame that are not sent.
    pub(crate) stripped: usize,
    /// A hash of the packet's flow.
    pub(crate) hash: u32,
    header: [u8; MAX_HEADER_LEN],
    header_len: usize,
    kind: TunnelKind,
    checksum: bool,
}

impl Outer {
    /// Both ends of the path.
    pub(crate) fn ends(&self) -> (IpAddr, Option<IpAddr>) {
        (self.departure.to.ip(), self.departure.local)
    }

    /// Length of the tunnel's header.
    pub(crate) fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes that an IP packet of the path has around what is sent of the frame.
    pub(crate) fn overhead(&self) -> usize {
        let ip = if self.departure.to.is_ipv4() { 20 } else { 40 };
        let udp = if self.kind.default_port().is_some() { UDP_LEN } else { 0 };
        ip + udp + self.header_len
    }

    /// Writes the tunnel's header, `to` being as long as it is, in front of `pieces`.
    pub(crate) fn write<'a>(&self, to: &mut [u8], pieces: impl IntoIterator<Item = &'a [u8]>) {
        for (to, from) in to.iter_mut().zip(&self.header) {
            *to = *from;
        }
        if self.checksum {
            gre::fill(to, pieces);
        }
    }
}

/// What goes around `frame`, by a port with these `options`.
///
/// # Errors
/// [`DropReason::TunnelDown`] when nothing says where to, [`DropReason::ParseError`] for what the tunnel does not carry.
pub(crate) fn around(options: &TunnelOptions, frame: &Frame, tlvs: &TlvMap) -> Result<Outer, DropReason> {
    let mut key = frame.tunnel.unwrap_or(TunnelKey::NONE);
    let (payload, stripped) = payload(options, frame.bytes())?;
    let remote = match options.remote {
        Part::Fixed(remote) => remote,
        Part::Flow => key.dst().ok_or(DropReason::TunnelDown)?,
    };
    let local = match options.local {
        Part::Fixed(local) => Some(local).filter(|local| !local.is_unspecified()),
        Part::Flow => key.src(),
    };
    if local.is_some_and(|local| local.is_ipv4() != remote.is_ipv4()) {
        return Err(DropReason::TunnelDown);
    }
    let keyed = match options.out_key {
        Part::Fixed(id) => {
            key.set_id(id.unwrap_or(0));
            id.is_some()
        }
        Part::Flow => true,
    };
    let inside = &frame.bytes()[stripped..];
    let (inner_tos, inner_ttl) = ecn::tos_ttl(inside, payload).unwrap_or((0, 0));
    let choose = |byte, inner, flow| match byte {
        Byte::Fixed(value) => value,
        Byte::Inherit => inner,
        Byte::Flow => flow,
    };
    let tos = ecn::encapsulate(choose(options.tos, inner_tos, key.tos()), inner_tos);
    let ttl = choose(options.ttl, inner_ttl, key.ttl());
    let checksum = options.kind == TunnelKind::Gre && options.csum == Some(true);
    let params = Params { kind: options.kind, payload, keyed, checksum, gbp: options.gbp, tlvs };
    let mut header = [0; MAX_HEADER_LEN];
    let header_len = header::write(&key, &params, &mut header);
    let to = SocketAddr::new(remote, options.port.unwrap_or(0));
    let departure = Departure { to, local, tos, ttl };
    let hash = entropy::flow_hash(inside, payload);
    Ok(Outer { departure, payload, id: key.id(), stripped, hash, header, header_len, kind: options.kind, checksum })
}

/// What of the frame is sent, and how many bytes in front of it are not.
fn payload(options: &TunnelOptions, bytes: &[u8]) -> Result<(Payload, usize), DropReason> {
    if !options.layer3 {
        return if bytes.len() < ETH_LEN { Err(DropReason::ParseError) } else { Ok((Payload::Ethernet, 0)) };
    }
    let eth_type = bytes.get(ETH_LEN - 2..).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b));
    let payload = eth_type.and_then(Payload::of_eth_type).filter(|payload| match options.kind {
        TunnelKind::Ipip => *payload == Payload::Ipv4,
        TunnelKind::Sit => *payload == Payload::Ipv6,
        _ => *payload != Payload::Ethernet,
    });
    payload.map(|payload| (payload, ETH_LEN)).ok_or(DropReason::ParseError)
}
