//! Messages of DHCP (RFC 2131, options of RFC 2132), to and from bytes.

use crate::lab::topology::resolved::Mac;
use smoltcp::wire::{
    ArpHardware, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpFlags, DhcpMessageType, DhcpOpCode, DhcpOption, DhcpPacket,
    EthernetAddress,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The server's UDP port.
pub(super) const SERVER_PORT: u16 = DHCP_SERVER_PORT;
/// The client's UDP port.
pub(super) const CLIENT_PORT: u16 = DHCP_CLIENT_PORT;

/// Numbers of options (RFC 2132).
pub(super) mod option {
    pub(crate) const MASK: u8 = 1;
    pub(crate) const ROUTER: u8 = 3;
    pub(crate) const DNS: u8 = 6;
    pub(crate) const HOST_NAME: u8 = 12;
    pub(crate) const DOMAIN: u8 = 15;
    pub(crate) const MTU: u8 = 26;
    pub(crate) const BROADCAST: u8 = 28;
    pub(crate) const REQUESTED: u8 = 50;
    pub(crate) const LEASE: u8 = 51;
    pub(crate) const KIND: u8 = 53;
    pub(crate) const SERVER: u8 = 54;
    pub(crate) const WANTED: u8 = 55;
    pub(crate) const RENEWAL: u8 = 58;
    pub(crate) const REBINDING: u8 = 59;
    pub(crate) const CLIENT: u8 = 61;
}

/// Where options begin, behind the fixed fields and the magic number.
const OPTIONS_AT: usize = 240;
/// Length of a message of BOOTP (RFC 951), which some receivers insist on.
const LENGTH_MIN: usize = 300;
/// The first octets of the options (RFC 2131, section 3).
const MAGIC: u32 = 0x6382_5363;
/// Longest data of one option.
const OPTION_MAX: usize = 255;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: DhcpMessageType,
    /// What tells the exchange from others.
    pub(super) exchange: u32,
    /// The client asks for an answer to everybody.
    pub(super) broadcast: bool,
    /// The address that the client has already (`ciaddr`).
    pub(super) client: Ipv4Addr,
    /// The address that it is given (`yiaddr`).
    pub(super) yours: Ipv4Addr,
    /// The relay that it came by (`giaddr`).
    pub(super) relay: Ipv4Addr,
    pub(super) mac: Mac,
    /// By number, without the message's kind.
    pub(super) options: BTreeMap<u8, Vec<u8>>,
}

impl Message {
    /// A message without options.
    pub(super) fn new(kind: DhcpMessageType, exchange: u32, mac: Mac) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        let options = BTreeMap::new();
        Self { kind, exchange, broadcast: false, client: none, yours: none, relay: none, mac, options }
    }

    /// Reads a message; `None` if it is none, or not of Ethernet.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let packet = DhcpPacket::new_checked(bytes).ok()?;
        let sound = packet.hardware_type() == ArpHardware::Ethernet
            && packet.hardware_len() == 6
            && packet.magic_number() == MAGIC;
        let mut options: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        // One that comes in pieces is one (RFC 3396).
        packet.options().for_each(|o| options.entry(o.kind).or_default().extend(o.data));
        let kind = DhcpMessageType::from(*options.remove(&option::KIND)?.first()?);
        (sound && packet.opcode() == opcode(kind)?).then(|| Self {
            kind,
            exchange: packet.transaction_id(),
            broadcast: packet.flags().contains(DhcpFlags::BROADCAST),
            client: packet.client_ip(),
            yours: packet.your_ip(),
            relay: packet.relay_agent_ip(),
            mac: Mac(packet.client_hardware_address().0),
            options,
        })
    }

    /// The message as it is sent.
    pub(super) fn encode(&self) -> Vec<u8> {
        let options = self.options.iter().filter(|(_, data)| data.len() <= OPTION_MAX);
        let length: usize = options.clone().map(|(_, data)| 2 + data.len()).sum();
        let mut bytes = vec![0; (OPTIONS_AT + 3 + length + 1).max(LENGTH_MIN)];
        let mut packet = DhcpPacket::new_unchecked(bytes.as_mut_slice());
        packet.set_opcode(opcode(self.kind).unwrap_or(DhcpOpCode::Request));
        packet.set_hardware_type(ArpHardware::Ethernet);
        packet.set_hardware_len(6);
        packet.set_transaction_id(self.exchange);
        packet.set_flags(if self.broadcast { DhcpFlags::BROADCAST } else { DhcpFlags::empty() });
        packet.set_client_ip(self.client);
        packet.set_your_ip(self.yours);
        packet.set_relay_agent_ip(self.relay);
        packet.set_client_hardware_address(EthernetAddress(self.mac.0));
        packet.set_magic_number(MAGIC);
        let mut writer = packet.options_mut();
        // There is room for all of them.
        _ = writer.emit(DhcpOption { kind: option::KIND, data: &[self.kind.into()] });
        options.for_each(|(kind, data)| _ = writer.emit(DhcpOption { kind: *kind, data }));
        _ = writer.end();
        bytes
    }

    /// An option that is an address, or begins with one.
    pub(super) fn address(&self, option: u8) -> Option<Ipv4Addr> {
        self.options.get(&option)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
    }

    /// An option that is a number of 32 bits.
    pub(super) fn number(&self, option: u8) -> Option<u32> {
        self.options.get(&option)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Adds an option.
    pub(super) fn with(mut self, option: u8, data: impl Into<Vec<u8>>) -> Self {
        self.options.insert(option, data.into());
        self
    }
}

/// Who sends messages of this kind: clients requests, servers replies.
fn opcode(kind: DhcpMessageType) -> Option<DhcpOpCode> {
    use DhcpMessageType as Kind;
    match kind {
        Kind::Discover | Kind::Request | Kind::Decline | Kind::Release | Kind::Inform => Some(DhcpOpCode::Request),
        Kind::Offer | Kind::Ack | Kind::Nak => Some(DhcpOpCode::Reply),
        Kind::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discover() -> Message {
        let mut message = Message::new(DhcpMessageType::Discover, 0x1234_5678, Mac([2, 0, 0, 0, 0, 9]));
        message.broadcast = true;
        message.with(option::WANTED, [option::MASK, option::ROUTER]).with(option::REQUESTED, [10, 0, 0, 7])
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let bytes = discover().encode();
        assert_eq!(bytes.len(), LENGTH_MIN);
        // Fields of RFC 2131, figure 1, and the magic number.
        assert_eq!(bytes[..12], [1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x80, 0]);
        assert_eq!(bytes[28..34], [2, 0, 0, 0, 0, 9]);
        assert_eq!(bytes[236..243], [99, 130, 83, 99, 53, 1, 1]);
        let read = Message::decode(&bytes).unwrap();
        assert_eq!(read, discover());
        assert_eq!(read.address(option::REQUESTED), Some(Ipv4Addr::new(10, 0, 0, 7)));
    }

    #[test]
    fn what_is_no_message_is_not_read() {
        let bytes = discover().encode();
        for end in 0..bytes.len() {
            // Cut short, it has no kind or is one with fewer options; it never is another.
            let read = Message::decode(&bytes[..end]);
            assert!(read.is_none_or(|read| read.kind == DhcpMessageType::Discover), "{end} bytes");
        }
        let wrong = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            Message::decode(&bytes)
        };
        // A reply that is a request, another kind of hardware, another magic number, no kind that there is.
        for (at, byte) in [(0, 2), (1, 6), (2, 8), (236, 0), (242, 77)] {
            assert_eq!(wrong(at, byte), None, "byte {at}");
        }
    }

    #[test]
    fn an_option_in_pieces_is_one() {
        let mut bytes = discover().encode();
        bytes[243..249].copy_from_slice(&[12, 1, b'a', 12, 1, b'b']);
        let options = Message::decode(&bytes).unwrap().options;
        assert_eq!(options.get(&option::HOST_NAME).map(Vec::as_slice), Some(&b"ab"[..]));
    }
}
