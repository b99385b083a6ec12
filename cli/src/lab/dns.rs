//! The DNS server beside each server of DHCP: it knows the lab's nodes (RFC 1035).
//!
//! A node is `h1` and `h1.LAB`, with its IPv4 and IPv6 addresses, and the names of addresses are found too. Any other name is
//! one that does not exist; with an uplink it is asked of the machine's own servers.

mod forward;
mod zone;

use super::names::RESOLVER;
pub(super) use forward::Forwarder;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
pub(super) use zone::{Answer, Zone};

/// The server's port.
const PORT: u16 = 53;
/// Longest query that is read, in bytes.
const QUERY_MAX: usize = 4096;
/// How long a client of TCP may say nothing.
const SILENCE: Duration = Duration::from_secs(5);

/// A server of names.
pub(super) struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    zone: Arc<Zone>,
    forwarder: Option<Forwarder>,
}

impl Server {
    /// Opens the server's ports in the calling thread's network namespace. What is not the lab's is asked of the
    /// `forwarder`, if there is one.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(zone: Zone, forwarder: Option<Forwarder>) -> io::Result<Self> {
        let any = Ipv4Addr::UNSPECIFIED;
        let (udp, tcp) = (UdpSocket::bind((any, PORT))?, TcpListener::bind((any, PORT))?);
        Ok(Self { udp, tcp, zone: Arc::new(zone), forwarder })
    }

    /// Starts to answer; its threads end when their sockets fail, which they do when the lab ends.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(self) -> io::Result<()> {
        let Self { udp, tcp, zone, forwarder } = self;
        let by_tcp = Arc::clone(&zone);
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        named("sluice-dns-tcp").spawn(move || serve_tcp(&tcp, &by_tcp))?;
        if let Some(forwarder) = &forwarder {
            let (forwarder, udp) = (forwarder.try_clone()?, udp.try_clone()?);
            named("sluice-dns-back").spawn(move || forwarder.give_back(&udp))?;
        }
        named("sluice-dns").spawn(move || serve_udp(&udp, &zone, forwarder.as_ref()))?;
        Ok(())
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Zone, forwarder: Option<&Forwarder>) {
    let mut bytes = vec![0; QUERY_MAX];
    while let Ok((count, from)) = socket.recv_from(&mut bytes) {
        let query = bytes.get_mut(..count).unwrap_or_default();
        let answer = zone.answer(query, false);
        let reply = match (answer, forwarder) {
            (Answer::Reply(reply), _) => reply,
            (Answer::Elsewhere(_), Some(forwarder)) if forwarder.ask(query, from) => continue,
            (Answer::Elsewhere(unknown), _) => unknown,
            (Answer::Nothing, _) => continue,
        };
        // Lost answers are asked for again.
        _ = socket.send_to(&reply, from);
    }
}

/// Answers whoever comes by TCP, one after another: resolvers do that only for what is too long for UDP.
fn serve_tcp(listener: &TcpListener, zone: &Zone) {
    while let Ok((stream, from)) = listener.accept() {
        if let Err(error) = converse(stream, zone) {
            tracing::debug!(%from, %error, "a client of DNS over TCP");
        }
    }
}

/// Answers every query of a connection; each has its length in front (RFC 7766, section 8).
fn converse(mut stream: TcpStream, zone: &Zone) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length)).min(QUERY_MAX)];
        stream.read_exact(&mut query)?;
        let (Answer::Reply(reply) | Answer::Elsewhere(reply)) = zone.answer(&query, true) else { break };
        let Ok(length) = u16::try_from(reply.len()) else { break };
        stream.write_all(&[&length.to_be_bytes()[..], &reply].concat())?;
    }
    stream.shutdown(Shutdown::Both)
}

/// The servers that the machine asks.
pub(super) fn machine_servers() -> Vec<SocketAddr> {
    servers(&std::fs::read_to_string(RESOLVER).unwrap_or_default())
}

fn servers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let servers = words.filter(|words| words.first() == Some(&"nameserver"));
    servers.filter_map(|words| Some(SocketAddr::new(words.get(1)?.parse().ok()?, PORT))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_servers_are_those_of_its_file() {
        let text =
            "# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.1\nnameserver  fd00::1 \nnameserver x\n";
        let wanted = ["192.0.2.1:53", "[fd00::1]:53"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(servers(text), wanted);
    }
}
