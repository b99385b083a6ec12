//! Whoever can send or be sent to in a truth table: it serves every port of the table by all three protocols, and asks many others at
//! once by real packets.
//!
//! TCP counts as let through when a connection is made, UDP when an echo comes back. The machine may have no sockets of SCTP: of
//! that an INIT is sent, and seen or not seen where it is to arrive.

use crate::sctp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use sluice_tests::netns::Netns;
use sluice_tests::policy::Protocol;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The ports that are served.
const PORTS: [u16; 2] = [80, 81];
/// How long it is waited for what is to be let through.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it is waited for what is to be dropped, at the least.
const SILENCE: Duration = Duration::from_millis(300);
/// How often datagrams and INITs are sent again.
const AGAIN: Duration = Duration::from_millis(500);
/// Each INIT has a tag of its own.
static NEXT_TAG: AtomicU32 = AtomicU32::new(1);

/// A network with addresses in it.
pub(super) struct Site {
    netns: Netns,
    /// The tags of INITs that have arrived.
    arrived: Arc<Mutex<BTreeSet<u32>>>,
    ended: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

/// A question: from where, to where, how, and whether an answer is expected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) from: IpAddr,
    pub(super) to: SocketAddr,
    pub(super) at: &'a Site,
    pub(super) protocol: Protocol,
    pub(super) is_expected: bool,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Site")
    }
}

impl Site {
    /// Serves at these addresses of a network until it is dropped.
    pub(super) fn start(netns: Netns, addresses: &[IpAddr]) -> Self {
        let places: Vec<SocketAddr> =
            addresses.iter().flat_map(|address| PORTS.map(|port| SocketAddr::new(*address, port))).collect();
        let arrived = Arc::new(Mutex::new(BTreeSet::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (listeners, echoes, seen) = netns.run(|| {
            let listeners: Vec<_> = places.iter().map(|place| TcpListener::bind(place).unwrap()).collect();
            let echoes: Vec<_> = places.iter().map(|place| UdpSocket::bind(place).unwrap()).collect();
            (listeners, echoes, sctp::sniffer())
        });
        listeners.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
        echoes.iter().chain([&seen]).for_each(|socket| socket.set_nonblocking(true).unwrap());
        let server = Server { listeners, echoes, seen, places, arrived: Arc::clone(&arrived) };
        let end = Arc::clone(&ended);
        let server = thread::spawn(move || server.serve(&end));
        Self { netns, arrived, ended, server: Some(server) }
    }

    /// Asks everything at once. Says to which questions there was an answer.
    pub(super) fn ask(&self, questions: &[Question<'_>]) -> Vec<bool> {
        let asked = self.netns.run(|| questions.iter().map(Asked::new).collect::<io::Result<Vec<_>>>());
        let mut asked = asked.unwrap_or_else(|error| panic!("cannot ask: {error}"));
        let begin = Instant::now();
        let mut sent = begin;
        loop {
            asked.iter_mut().zip(questions).for_each(|(one, question)| one.look(question));
            let missing = asked.iter().zip(questions).any(|(one, question)| question.is_expected && !one.is_answered);
            if begin.elapsed() > if missing { PATIENCE } else { SILENCE } {
                return asked.into_iter().map(|one| one.is_answered).collect();
            }
            if sent.elapsed() > AGAIN {
                sent = Instant::now();
                asked.iter_mut().zip(questions).for_each(|(one, question)| one.send(question));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        _ = self.server.take().map(JoinHandle::join);
    }
}

/// A question that has been asked.
struct Asked {
    socket: Socket,
    is_answered: bool,
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
    Sctp(UdpSocket, u32),
}

impl Asked {
    fn new(question: &Question<'_>) -> io::Result<Self> {
        let socket = match question.protocol {
            Protocol::Tcp => Socket::Tcp(connect(question.from, question.to)?),
            Protocol::Udp => {
                let socket = UdpSocket::bind((question.from, 0))?;
                socket.connect(question.to)?;
                socket.set_nonblocking(true)?;
                Socket::Udp(socket)
            }
            Protocol::Sctp => Socket::Sctp(sctp::sender(question.from), NEXT_TAG.fetch_add(1, Ordering::Relaxed)),
        };
        let mut asked = Self { socket, is_answered: false };
        asked.send(question);
        Ok(asked)
    }

    /// Sends what has to be sent more than once where packets are lost. The kernel drops what its own firewall denies with an error.
    fn send(&mut self, question: &Question<'_>) {
        match &self.socket {
            _ if self.is_answered => {}
            Socket::Tcp(_) => {}
            Socket::Udp(socket) => _ = socket.send(b"who"),
            // The port is of no meaning, but each connection has one of its own.
            Socket::Sctp(socket, tag) => {
                let from = SocketAddr::new(question.from, 1024 + (tag % 60_000) as u16);
                let packet = sctp::init(*tag, from, question.to);
                _ = socket.send_to(&packet, SocketAddr::new(question.to.ip(), 0));
            }
        }
    }

    fn look(&mut self, question: &Question<'_>) {
        self.is_answered |= match &self.socket {
            Socket::Tcp(stream) => stream.peer_addr().is_ok(),
            Socket::Udp(socket) => socket.recv(&mut [0; 16]).is_ok(),
            Socket::Sctp(_, tag) => question.at.arrived.lock().unwrap().contains(tag),
        };
    }
}

/// A connection that is being made.
fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, SockType::Stream, flags, None)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

/// What serves.
struct Server {
    listeners: Vec<TcpListener>,
    echoes: Vec<UdpSocket>,
    seen: UdpSocket,
    places: Vec<SocketAddr>,
    arrived: Arc<Mutex<BTreeSet<u32>>>,
}

impl Server {
    fn serve(&self, end: &AtomicBool) {
        let mut buffer = [0; 2000];
        while !end.load(Ordering::Relaxed) {
            let listeners = self.listeners.iter().map(AsFd::as_fd);
            let sockets = self.echoes.iter().chain([&self.seen]).map(AsFd::as_fd);
            let mut all: Vec<_> = listeners.chain(sockets).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            _ = poll(&mut all, PollTimeout::from(100_u8));
            self.listeners.iter().for_each(|listener| while listener.accept().is_ok() {});
            for echo in &self.echoes {
                while let Ok((len, from)) = echo.recv_from(&mut buffer) {
                    _ = echo.send_to(&buffer[..len], from);
                }
            }
            while let Ok(len) = self.seen.recv(&mut buffer) {
                if let Some((to, tag)) = sctp::read_init(&buffer[..len])
                    && self.places.contains(&to)
                {
                    self.arrived.lock().unwrap().insert(tag);
                }
            }
        }
    }
}
