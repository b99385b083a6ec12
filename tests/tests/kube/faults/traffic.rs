//! Traffic between two Pods that goes on while something is killed, and what became of it.
//!
//! Sockets are made in the Pods' namespaces by this process, so that no program of the cluster carries what is measured: `kubectl exec`
//! would end with the API server, the kubelet or containerd. Datagrams are numbered and echoed, one every [`STEP`]. TCP connections
//! are made once, count in both directions at the same pace, and never connect again.

use sluice_tests::netns::Netns;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Between two packets of one line.
pub(crate) const STEP: Duration = Duration::from_millis(20);
/// How long an answer may take, and a connection to be made.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of a line of traffic.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Which way it went.
    pub(crate) name: String,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// The longest time in which nothing arrived.
    pub(crate) pause: Duration,
    /// Why it came to an end before it was to.
    pub(crate) broken: Option<String>,
}

/// Servers in a Pod that echo datagrams and count with whoever connects, until they are dropped.
pub(crate) struct Servers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    pub(crate) fn start(network: &Netns, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let any: IpAddr = "::".parse().unwrap();
        let echo = network.run(|| UdpSocket::bind((any, port))).unwrap();
        let listener = network.run(|| TcpListener::bind((any, port))).unwrap();
        echo.set_read_timeout(Some(STEP)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (a, b) = (Arc::clone(&stop), Arc::clone(&stop));
        let echoing = thread::spawn(move || {
            let mut bytes = [0; 64];
            while !a.load(Ordering::Relaxed) {
                if let Ok((len, from)) = echo.recv_from(&mut bytes) {
                    _ = echo.send_to(&bytes[..len], from);
                }
            }
        });
        let accepting = thread::spawn(move || {
            let mut counters = Vec::new();
            while !b.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => counters.push(Counter::start(stream, &b)),
                    Err(_) => sleep(STEP),
                }
            }
            counters.into_iter().for_each(|counter| _ = counter.end());
        });
        Self { stop, threads: vec![echoing, accepting] }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

/// One end of a connection: it sends the numbers from 0 on and checks that the other end does the same.
struct Counter {
    stream: TcpStream,
    got: Arc<AtomicU64>,
    sending: JoinHandle<Result<u64, String>>,
    receiving: JoinHandle<Result<Duration, String>>,
}

impl Counter {
    fn start(stream: TcpStream, stop: &Arc<AtomicBool>) -> Self {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(STEP)).unwrap();
        let got = Arc::new(AtomicU64::new(0));
        let (mut to, mut from) = (stream.try_clone().unwrap(), stream.try_clone().unwrap());
        let (a, b, count) = (Arc::clone(stop), Arc::clone(stop), Arc::clone(&got));
        let sending = thread::spawn(move || {
            let mut number = 0_u64;
            while !a.load(Ordering::Relaxed) {
                to.write_all(&number.to_be_bytes()).map_err(|error| format!("sending number {number}: {error}"))?;
                number += 1;
                sleep(STEP);
            }
            Ok(number)
        });
        let receiving = thread::spawn(move || {
            let (mut last, mut pause) = (Instant::now(), Duration::ZERO);
            let (mut bytes, mut filled) = ([0; 8], 0);
            while !b.load(Ordering::Relaxed) {
                let expected = count.load(Ordering::Relaxed);
                match from.read(&mut bytes[filled..]) {
                    Ok(0) => return Err(format!("the other end closed it after {expected} numbers")),
                    Ok(len) => filled += len,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(format!("after {expected} numbers: {error}")),
                }
                if filled == 8 {
                    let number = u64::from_be_bytes(bytes);
                    if number != expected {
                        return Err(format!("{number} came where {expected} was to come"));
                    }
                    count.store(expected + 1, Ordering::Relaxed);
                    (pause, last, filled) = (pause.max(last.elapsed()), Instant::now(), 0);
                }
            }
            Ok(pause.max(last.elapsed()))
        });
        Self { stream, got, sending, receiving }
    }

    /// Numbers sent, and the longest pause, or why it broke. Whoever started it has said stop, or waits until it breaks.
    fn end(self) -> Result<(u64, Duration), String> {
        let sent = self.sending.join().unwrap();
        let pause = self.receiving.join().unwrap();
        _ = self.stream.shutdown(std::net::Shutdown::Both);
        Ok((sent?, pause?))
    }
}

/// Lines of traffic from one Pod.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    datagrams: Vec<(String, JoinHandle<Outcome>)>,
    streams: Vec<(String, Counter)>,
}

impl Traffic {
    /// Datagrams and a connection from `network` to each of the named addresses; all of them have worked when this returns.
    pub(crate) fn start(network: &Netns, targets: &[(&str, SocketAddr)]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut datagrams, mut streams) = (Vec::new(), Vec::new());
        for (name, target) in targets {
            let stream = network.run(|| TcpStream::connect_timeout(target, PATIENCE));
            let stream = stream.unwrap_or_else(|error| panic!("no connection to {target} ({name}): {error}"));
            streams.push((format!("TCP {name}"), Counter::start(stream, &stop)));
            let any = if target.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let socket = network.run(|| UdpSocket::bind(any)).unwrap();
            socket.connect(target).unwrap();
            let (name, stop) = (format!("UDP {name}"), Arc::clone(&stop));
            datagrams.push((name.clone(), thread::spawn(move || ping(name, &socket, &stop))));
        }
        let traffic = Self { stop, datagrams, streams };
        let begin = Instant::now();
        while traffic.counts().contains(&0) {
            assert!(begin.elapsed() < PATIENCE * 5, "a connection does not count: {:?}", traffic.counts());
            sleep(STEP);
        }
        traffic
    }

    /// How many numbers each connection has got.
    fn counts(&self) -> Vec<u64> {
        self.streams.iter().map(|(_, counter)| counter.got.load(Ordering::Relaxed)).collect()
    }

    /// Waits until every connection counts on, at most `seconds`; those that do not tell so by [`Self::end`].
    pub(crate) fn await_progress(&self, seconds: u64) {
        let (begin, before) = (Instant::now(), self.counts());
        while begin.elapsed() < Duration::from_secs(seconds) {
            if self.counts().iter().zip(&before).all(|(now, before)| now > before) {
                return;
            }
            sleep(STEP);
        }
    }

    /// Ends it and says what became of each line.
    pub(crate) fn end(self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let datagrams = self.datagrams.into_iter().map(|(_, thread)| thread.join().unwrap());
        let streams = self.streams.into_iter().map(|(name, counter)| match counter.end() {
            Ok((sent, pause)) => Outcome { name, sent, lost: 0, pause, broken: None },
            Err(why) => Outcome { name, sent: 0, lost: 0, pause: Duration::ZERO, broken: Some(why) },
        });
        datagrams.chain(streams).collect()
    }
}

/// Sends numbered datagrams and takes their echoes, each step one, until told to stop.
fn ping(name: String, socket: &UdpSocket, stop: &AtomicBool) -> Outcome {
    let begin = Instant::now();
    let arrivals = Mutex::new(Vec::new());
    let sent = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            socket.set_read_timeout(Some(STEP)).unwrap();
            let mut bytes = [0; 8];
            while !done.load(Ordering::Relaxed) {
                // A refusal is a packet that is lost.
                if socket.recv(&mut bytes).is_ok_and(|len| len == 8) {
                    arrivals.lock().unwrap().push((u64::from_be_bytes(bytes), begin.elapsed()));
                }
            }
        });
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let number = sent.fetch_add(1, Ordering::Relaxed);
            _ = socket.send(&number.to_be_bytes());
            next += STEP;
            sleep(next.saturating_duration_since(Instant::now()));
        }
        // The last ones are on their way.
        sleep(Duration::from_millis(500));
        done.store(true, Ordering::Relaxed);
    });
    let sent = sent.into_inner();
    let mut numbers: Vec<u64> = arrivals.into_inner().unwrap().into_iter().map(|(number, _)| number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let received = u64::try_from(numbers.len()).unwrap();
    // Numbers rather than times: what a busy machine is late with has not been lost.
    let ends = numbers.iter().copied().chain([sent]);
    let longest = ends.scan(0, |next, number| Some(number - std::mem::replace(next, number + 1))).max().unwrap_or(sent);
    let pause = STEP * u32::try_from(longest).unwrap();
    Outcome { name, sent, lost: sent - received, pause, broken: None }
}
