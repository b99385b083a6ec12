//! Sockets where a test needs them: in a Pod, on a node or outside, opened by the suite itself.
//!
//! A program in a Pod could tell no more, and would tell it later: here a hundred connections take a second, a connection stays
//! open as long as a test wants, and a datagram comes from the port that the test says.

use crate::cluster::{Cluster, within};
use sluice_tests::netns::Netns;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long an answer may take. What is dropped is found out by waiting so long.
const ANSWER: Duration = Duration::from_millis(1500);
/// How often the right ones have to answer without anybody else between.
const STREAK: usize = 12;
/// How long a change of the cluster may take, in seconds.
pub(crate) const SETTLED: u64 = 20;

/// Who has sockets.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) netns: Netns,
}

/// How sockets talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proto {
    Tcp,
    Udp,
}

/// Both.
pub(crate) const BOTH: [Proto; 2] = [Proto::Tcp, Proto::Udp];

/// What comes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Who answered, and whom they see asking.
    By(String, IpAddr),
    /// The kernel was told that nobody does.
    Refused,
    /// Nothing.
    Silence,
}

impl Heard {
    /// Who answered.
    pub(crate) fn who(&self) -> Result<String, String> {
        match self {
            Self::By(who, _) => Ok(who.clone()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Whom the one that answered saw.
    pub(crate) fn seen(&self) -> IpAddr {
        match self {
            Self::By(_, seen) => *seen,
            other => panic!("nobody answered: {other:?}"),
        }
    }

    fn of(result: io::Result<String>) -> Self {
        match result {
            Ok(text) => {
                let mut words = text.split_whitespace();
                let (who, seen) = (words.next().unwrap(), words.next().unwrap());
                Self::By(who.to_owned(), seen.parse().unwrap())
            }
            // The last is what the kernel says of its own packets that it drops.
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::PermissionDenied) => {
                Self::Silence
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
                ) =>
            {
                Self::Refused
            }
            Err(e) => panic!("a question: {e}"),
        }
    }
}

impl Place {
    /// A Pod that runs.
    pub(crate) fn pod(cluster: &Cluster, pod: &str) -> Self {
        Self::pod_of(cluster, "default", pod)
    }

    /// A Pod of a namespace that runs.
    pub(crate) fn pod_of(cluster: &Cluster, namespace: &str, pod: &str) -> Self {
        Self { name: pod.to_owned(), netns: cluster.netns_in(namespace, pod) }
    }

    /// A node, or `control`, which is outside of the cluster.
    pub(crate) fn node(cluster: &Cluster, node: &str) -> Self {
        Self { name: node.to_owned(), netns: cluster.netns_of_machine(node) }
    }

    /// Does something there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work)
    }

    /// A socket for datagrams of the family of `to`, which it is connected to.
    pub(crate) fn datagrams(&self, to: SocketAddr) -> UdpSocket {
        self.netns.run(|| {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(ANSWER)).unwrap();
            socket.connect(to).unwrap();
            socket
        })
    }

    /// A connection that is open.
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<Connection> {
        let stream = self.netns.run(|| TcpStream::connect_timeout(&to, ANSWER))?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_nodelay(true)?;
        Ok(Connection { reader: BufReader::new(stream) })
    }

    /// Asks once, from a new socket.
    pub(crate) fn ask(&self, proto: Proto, to: SocketAddr) -> Heard {
        Heard::of(match proto {
            Proto::Tcp => self.connect(to).and_then(|mut connection| connection.ask()),
            Proto::Udp => ask_by(&self.datagrams(to), b"who"),
        })
    }

    /// Asks until everybody of `whom` has answered and for some times nobody else does. Returns what was heard last.
    pub(crate) fn reaches(&self, proto: Proto, to: SocketAddr, whom: &[&str]) -> Vec<Heard> {
        let end = Instant::now() + Duration::from_secs(SETTLED);
        let mut heard: Vec<Heard> = Vec::new();
        loop {
            let now = self.ask(proto, to);
            match now.who() {
                Ok(who) if whom.contains(&who.as_str()) => heard.push(now.clone()),
                _ => heard.clear(),
            }
            let missing = || whom.iter().filter(|who| !heard.iter().any(|h| h.who().as_deref() == Ok(who)));
            if heard.len() >= STREAK && missing().next().is_none() {
                return heard;
            }
            assert!(
                Instant::now() < end,
                "{} asks {to} by {proto:?}: at last {now:?}; missing {:?}",
                self.name,
                missing().collect::<Vec<_>>()
            );
            // Changes take a moment.
            thread::sleep(Duration::from_millis(if heard.is_empty() { 500 } else { 1 }));
        }
    }

    /// Asks until the answer is this.
    pub(crate) fn hears(&self, proto: Proto, to: SocketAddr, wanted: &Heard) {
        within(SETTLED, &format!("{wanted:?} for {} by {proto:?} at {to}", self.name), || {
            let heard = self.ask(proto, to);
            if heard == *wanted { Ok(()) } else { Err(format!("{heard:?}")) }
        });
    }

    /// Asks until it is refused.
    pub(crate) fn is_refused(&self, proto: Proto, to: SocketAddr) {
        self.hears(proto, to, &Heard::Refused);
    }

    /// Asks until nobody answers at all.
    pub(crate) fn hears_nothing(&self, proto: Proto, to: SocketAddr) {
        self.hears(proto, to, &Heard::Silence);
    }
}

/// Checks of several things at once, since most of the time of a check is waiting. One that panics fails the test.
pub(crate) fn each<T: Send>(things: impl IntoIterator<Item = T>, check: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for thing in things {
            let check = &check;
            scope.spawn(move || check(thing));
        }
    });
}

/// All ways from some places to some addresses.
fn ways<'a>(places: &[&'a Place], protos: &[Proto], to: &[SocketAddr]) -> Vec<(&'a Place, Proto, SocketAddr)> {
    let of_place = |place: &&'a Place| {
        let (place, addresses) = (*place, to.to_vec());
        protos.iter().flat_map(move |proto| addresses.clone().into_iter().map(move |at| (place, *proto, at)))
    };
    places.iter().flat_map(of_place).collect()
}

/// Each place reaches all of `whom`, and nobody else, by each protocol at each address.
pub(crate) fn all_reach(places: &[&Place], protos: &[Proto], to: &[SocketAddr], whom: &[&str]) {
    each(ways(places, protos, to), |(place, proto, at)| drop(place.reaches(proto, at, whom)));
}

/// Each place is refused by each protocol at each address.
pub(crate) fn all_refused(places: &[&Place], protos: &[Proto], to: &[SocketAddr]) {
    each(ways(places, protos, to), |(place, proto, at)| place.is_refused(proto, at));
}

/// Each place hears nothing by each protocol at each address.
pub(crate) fn all_hear_nothing(places: &[&Place], protos: &[Proto], to: &[SocketAddr]) {
    each(ways(places, protos, to), |(place, proto, at)| place.hears_nothing(proto, at));
}

/// A question in a datagram of `question`'s length.
pub(crate) fn ask_by(socket: &UdpSocket, question: &[u8]) -> io::Result<String> {
    socket.send(question)?;
    let mut answer = [0; 65_536];
    let len = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..len]).trim_end().to_owned())
}

/// A TCP connection that is open.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// A question and its answer.
    pub(crate) fn ask(&mut self) -> io::Result<String> {
        self.reader.get_mut().write_all(b"who\n")?;
        let mut line = String::new();
        match self.reader.read_line(&mut line)? {
            0 => Err(ErrorKind::ConnectionRefused.into()),
            _ => Ok(line),
        }
    }

    /// Who answers.
    pub(crate) fn who(&mut self) -> Result<String, String> {
        match self.ask() {
            Ok(line) => Heard::of(Ok(line)).who(),
            Err(e) => Err(e.to_string()),
        }
    }
}

/// Servers of TCP and UDP at some addresses: to each line or datagram they say who they are and who asks, in as many bytes as it has
/// if that is more. They end with this value.
pub(crate) struct Server {
    ended: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(place: &Place, name: &str, tcp: &[SocketAddr], udp: &[SocketAddr]) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        for at in tcp {
            let listener = place.netns.run(|| TcpListener::bind(at)).unwrap_or_else(|e| panic!("{name} at {at}: {e}"));
            let (name, ended) = (name.to_owned(), Arc::clone(&ended));
            listener.set_nonblocking(true).unwrap();
            thread::spawn(move || accept(&listener, &name, &ended));
        }
        for at in udp {
            let socket = place.netns.run(|| UdpSocket::bind(at)).unwrap_or_else(|e| panic!("{name} at {at}: {e}"));
            let (name, ended) = (name.to_owned(), Arc::clone(&ended));
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            thread::spawn(move || answer(&socket, &name, &ended));
        }
        Self { ended }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, name: &str, ended: &Arc<AtomicBool>) {
    while !ended.load(Ordering::Relaxed) {
        let Ok((stream, from)) = listener.accept() else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let (name, ended) = (name.to_owned(), Arc::clone(ended));
        thread::spawn(move || _ = serve(stream, from, &name, &ended));
    }
}

fn serve(stream: TcpStream, from: SocketAddr, name: &str, ended: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !ended.load(Ordering::Relaxed) {
        match reader.read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => {
                line.clear();
                writeln!(reader.get_mut(), "{name} {} {}", from.ip().to_canonical(), from.port())?;
            }
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn answer(socket: &UdpSocket, name: &str, ended: &AtomicBool) {
    let mut question = [0; 65_536];
    while !ended.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut question) {
            let text = format!("{name} {} {} {len}", from.ip().to_canonical(), from.port());
            _ = socket.send_to(format!("{text:<len$}").as_bytes(), from);
        }
    }
}
