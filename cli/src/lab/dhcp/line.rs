//! A host's interface as a client without an address uses it: whole frames, past the kernel's own network layer, which
//! takes nothing in before it has an address.

use super::message::{CLIENT_PORT, Message, SERVER_PORT};
use crate::lab::topology::resolved::Mac;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sluice_flows::packet::{Frame, MAX_FRAME_LEN};
use sluice_switch::port::{AfPacket, AfPacketOptions, Port, PortError, PortQueue, TxOutcome};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    UdpPacket, UdpRepr,
};
use std::net::Ipv4Addr;
use std::thread;
use std::time::Instant;

/// The usual time to live.
const TTL: u8 = 64;

/// The interface while messages are exchanged by it.
pub(super) struct Line {
    queue: Box<dyn PortQueue>,
    frames: Vec<Frame>,
    mac: Mac,
    /// The queue's device.
    _port: AfPacket,
}

/// Where a message goes: to one server, or to whoever hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct To {
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
}

impl To {
    /// Everybody on the link.
    pub(super) const ALL: Self = Self { mac: Mac([0xff; 6]), ip: Ipv4Addr::BROADCAST };
}

impl Line {
    /// Opens an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// It is gone, or the kernel refuses a packet socket.
    pub(super) fn open(interface: &str, mac: Mac) -> Result<Self, PortError> {
        let port = AfPacket::open(interface, &AfPacketOptions { up: false, ..AfPacketOptions::default() })?;
        let queue = port.queues(1)?.pop();
        let queue = queue.ok_or_else(|| PortError::NoDevice { port: interface.to_owned() })?;
        Ok(Self { queue, frames: vec![Frame::with_capacity(MAX_FRAME_LEN)], mac, _port: port })
    }

    /// Sends a message. One that is lost on the way out is lost like any other.
    pub(super) fn send(&mut self, message: &Message, to: To) {
        let frame = Frame::from_bytes(&frame(message, self.mac, to));
        self.queue.tx_burst(&[&frame], &mut [TxOutcome::Sent]);
    }

    /// The next message of a server and the server's place; `None` when there is none until `end`, or the interface is
    /// gone.
    pub(super) fn receive(&mut self, end: Instant) -> Option<(Message, Mac)> {
        loop {
            match self.queue.rx_burst(&mut self.frames) {
                Ok(0) => {
                    let left = end.checked_duration_since(Instant::now())?;
                    let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
                    let fd = PollFd::new(self.queue.rx_fd()?, PollFlags::POLLIN);
                    // One that is interrupted is one that took no time.
                    _ = poll(&mut [fd], timeout);
                }
                Ok(_) => match read(self.frames.first()?.bytes()) {
                    Some(found) => return Some(found),
                    // Frames that are no messages must not keep the client waiting for ever.
                    None if Instant::now() >= end => return None,
                    None => {}
                },
                Err(_) => {
                    // Gone with the lab, as a rule; whoever asks again is not to do so without end.
                    thread::sleep(end.saturating_duration_since(Instant::now()));
                    return None;
                }
            }
        }
    }
}

/// A client's message as a frame.
fn frame(message: &Message, from: Mac, to: To) -> Vec<u8> {
    let payload = message.encode();
    let checksums = ChecksumCapabilities::default();
    let udp = UdpRepr { src_port: CLIENT_PORT, dst_port: SERVER_PORT };
    let ip = Ipv4Repr {
        src_addr: message.client,
        dst_addr: to.ip,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: TTL,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(from.0),
        dst_addr: EthernetAddress(to.mac.0),
        ethertype: EthernetProtocol::Ipv4,
    };
    let (ip_at, udp_at) = (ethernet.buffer_len(), ethernet.buffer_len() + ip.buffer_len());
    let mut bytes = vec![0; udp_at + ip.payload_len];
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes[..]));
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[ip_at..]), &checksums);
    let (src, dst) = (IpAddress::Ipv4(ip.src_addr), IpAddress::Ipv4(ip.dst_addr));
    let mut packet = UdpPacket::new_unchecked(&mut bytes[udp_at..]);
    udp.emit(&mut packet, &src, &dst, payload.len(), |room| room.copy_from_slice(&payload), &checksums);
    bytes
}

/// The message that a server sent in this frame, and the server's MAC address. Checksums are not looked at: on its way
/// inside a machine a packet has none yet.
fn read(frame: &[u8]) -> Option<(Message, Mac)> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if ip.next_header() != IpProtocol::Udp || ip.more_frags() || ip.frag_offset() != 0 {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    let ports = (udp.src_port(), udp.dst_port()) == (SERVER_PORT, CLIENT_PORT);
    let message = ports.then(|| Message::decode(udp.payload()))??;
    Some((message, Mac(ethernet.src_addr().0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::DhcpMessageType;

    #[test]
    fn a_clients_message_is_a_frame_to_the_servers_port() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let message = Message::new(DhcpMessageType::Discover, 7, mac);
        let bytes = frame(&message, mac, To::ALL);
        assert_eq!(bytes[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 0]);
        let ip = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
        assert!(ip.verify_checksum());
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
        assert_eq!((udp.src_port(), udp.dst_port()), (68, 67));
        assert_eq!(Message::decode(udp.payload()), Some(message));
        // It is a client's, so a client does not take it for an answer.
        assert_eq!(read(&bytes), None);
        let mut answer = bytes;
        answer[34..38].copy_from_slice(&[0, 67, 0, 68]);
        assert_eq!(read(&answer).map(|(_, from)| from), Some(mac));
        (0..answer.len()).for_each(|end| assert_eq!(read(&answer[..end]), None, "{end} bytes"));
    }
}
