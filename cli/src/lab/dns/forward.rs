//! Queries for names that are not the lab's, given on to the machine's own servers: to all of them, and the first answer
//! counts.
//!
//! The sockets belong to the machine's network namespace, where they were opened. Each query goes on with a number of its own,
//! by which its answer is known; one that is never answered makes room for another.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

/// Most queries under way.
const WAITING: u16 = 1024;
/// Longest answer that is given back, in bytes.
const ANSWER_MAX: usize = 4096;

/// Gives queries on.
pub(in crate::lab) struct Forwarder {
    /// One for each server of the machine.
    sockets: Vec<UdpSocket>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Who asked what.
#[derive(Default)]
struct Waiting {
    /// The number that the query went on with, its own, and who asked.
    asked: Vec<(u16, u16, SocketAddr)>,
    next: u16,
}

impl Forwarder {
    /// Opens sockets to these servers in the calling thread's network namespace.
    ///
    /// # Errors
    /// The system's.
    pub(in crate::lab) fn open(servers: &[SocketAddr]) -> io::Result<Self> {
        let open = |server: &SocketAddr| {
            let socket = match server {
                SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
                SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
            };
            socket.connect(server).map(|()| socket)
        };
        // One that there is no way to does not keep the others from being asked.
        let sockets = servers.iter().filter_map(|server| open(server).ok()).collect();
        Ok(Self { sockets, waiting: Arc::default() })
    }

    /// The same sockets once more.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(in crate::lab) fn try_clone(&self) -> io::Result<Self> {
        let sockets = self.sockets.iter().map(UdpSocket::try_clone).collect::<Result<_, _>>()?;
        Ok(Self { sockets, waiting: Arc::clone(&self.waiting) })
    }

    /// Gives a query on; whether there is anybody to give it to.
    pub(super) fn ask(&self, query: &[u8], from: SocketAddr) -> bool {
        let Some(number) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).add(query, from) else {
            return false;
        };
        let query = renumbered(query, number);
        // Every one is to be asked.
        self.sockets.iter().filter(|socket| socket.send(&query).is_ok()).count() > 0
    }

    /// Gives answers of one server back by `to`, until its socket fails.
    fn give_back_of(&self, server: &UdpSocket, to: &UdpSocket) {
        let mut bytes = vec![0; ANSWER_MAX];
        loop {
            match server.recv(&mut bytes) {
                Ok(count) => {
                    let answer = bytes.get(..count).unwrap_or_default();
                    let asked = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take(answer);
                    if let Some((number, from)) = asked {
                        // The client asks again.
                        _ = to.send_to(&renumbered(answer, number), from);
                    }
                }
                // Nobody is at the server's port just now.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }

    /// Gives answers back by `to`, until the sockets fail.
    pub(super) fn give_back(&self, to: &UdpSocket) {
        std::thread::scope(|scope| {
            self.sockets.iter().for_each(|server| _ = scope.spawn(|| self.give_back_of(server, to)));
        });
    }
}

impl Waiting {
    /// Notes a query; returns the number that it goes on with.
    fn add(&mut self, query: &[u8], from: SocketAddr) -> Option<u16> {
        let own = u16::from_be_bytes(*query.first_chunk()?);
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let slot = usize::from(number % WAITING);
        match self.asked.get_mut(slot) {
            Some(asked) => *asked = (number, own, from),
            None => self.asked.push((number, own, from)),
        }
        Some(number)
    }

    /// The number that the query of this answer had, and who asked, if an answer is waited for.
    fn take(&mut self, answer: &[u8]) -> Option<(u16, SocketAddr)> {
        let number = u16::from_be_bytes(*answer.first_chunk()?);
        let asked = self.asked.get_mut(usize::from(number % WAITING)).filter(|asked| asked.0 == number)?;
        // No other answer has a number of another slot, so this one is not taken twice.
        asked.0 = number.wrapping_add(1);
        Some((asked.1, asked.2))
    }
}

/// A message with another number.
fn renumbered(message: &[u8], number: u16) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(first) = message.first_chunk_mut() {
        *first = number.to_be_bytes();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn queries_go_on_with_numbers_of_their_own_and_answers_back_once() {
        let mut waiting = Waiting::default();
        let clients = [1, 2].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let numbers = clients.map(|client| waiting.add(&[7, 7, 0], client).unwrap());
        assert_ne!(numbers[0], numbers[1]);
        assert_eq!(waiting.take(&numbers[1].to_be_bytes()), Some((0x0707, clients[1])));
        assert_eq!(waiting.take(&numbers[1].to_be_bytes()), None, "it was answered");
        // The one that was never answered makes room in the end.
        (0..WAITING).for_each(|_| _ = waiting.add(&[1, 1], clients[1]));
        assert_eq!(waiting.take(&numbers[0].to_be_bytes()), None);
        assert_eq!(waiting.asked.len(), usize::from(WAITING));
        assert_eq!(waiting.add(&[1], clients[0]), None, "no query");
    }

    #[test]
    fn an_answer_reaches_who_asked() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let forwarder = Forwarder::open(&[server.local_addr().unwrap()]).unwrap();
        let (own, client): (UdpSocket, UdpSocket) =
            [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).into();
        let back = forwarder.try_clone().unwrap();
        // Ends with the test's process.
        std::thread::spawn(move || back.give_back(&own));
        assert!(forwarder.ask(&[0xab, 0xcd, 1, 2], client.local_addr().unwrap()));
        let mut bytes = [0; 16];
        let (count, from) = server.recv_from(&mut bytes).unwrap();
        assert_eq!(bytes[2..count], [1, 2]);
        server.send_to(&[bytes[0], bytes[1], 3], from).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let count = client.recv(&mut bytes).unwrap();
        assert_eq!(bytes[..count], [0xab, 0xcd, 3]);
    }
}
