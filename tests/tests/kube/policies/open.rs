//! Thousands of open connections while policies and labels change: those that are allowed before and after are never cut, of those
//! that are denied neither end hears anything, and they go on when they are allowed again.
//!
//! Servers are processes of their own, since a process has no more descriptors than connections need: this program, started in a
//! Pod's network with [`SERVE`]. They give back what they get; for each line on their standard input they say something by themselves.

use super::put;
use crate::cluster::{Cluster, within};
use crate::services::field::{Field, with_port};
use crate::services::place::{Place, each};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The first word for a process that serves at the addresses behind it.
pub(crate) const SERVE: &str = "--serve";
/// Connections unless `SLUICE_KUBE_CONNECTIONS` says how many.
const CONNECTIONS: usize = 1000;
/// Where servers are.
const PORT: u16 = 7001;
/// What a client says, and what a server says by itself.
const QUESTION: u8 = b'q';
const NEWS: u8 = b'n';
/// How long a connection may take to go on, in seconds: its ends send again ever more seldom.
const GOES_ON_WITHIN: u64 = 60;
/// For how long nothing may come by a connection that is denied.
const SILENCE: Duration = Duration::from_secs(2);

/// Serves at these addresses until standard input ends.
pub(crate) fn serve(addresses: impl Iterator<Item = String>) {
    let listeners: Vec<TcpListener> = addresses.map(|at| TcpListener::bind(at).unwrap()).collect();
    listeners.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
    println!("ready");
    let input = io::stdin();
    let mut streams: Vec<TcpStream> = Vec::new();
    loop {
        let all = [input.as_fd()].into_iter().chain(listeners.iter().map(AsFd::as_fd));
        let mut all: Vec<_> =
            all.chain(streams.iter().map(AsFd::as_fd)).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut all, PollTimeout::NONE).unwrap();
        let ready: Vec<bool> = all.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        if ready[0] {
            match input.lock().read(&mut [0; 1]) {
                Ok(1) => streams.iter_mut().for_each(|stream| _ = stream.write(&[NEWS])),
                _ => return,
            }
        }
        let mut ready = ready[1 + listeners.len()..].iter();
        streams.retain_mut(|stream| !ready.next().is_some_and(|is| *is) || give_back(stream));
        for listener in &listeners {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                streams.push(stream);
            }
        }
    }
}

/// Whether the connection goes on.
fn give_back(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 256];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(len) => stream.write_all(&buffer[..len]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// A process that serves.
struct Server(Child);

impl Server {
    fn start(place: &Place, at: &[SocketAddr]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(SERVE).args(at.iter().map(SocketAddr::to_string)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = place.run(|| command.spawn()).unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        Self(child)
    }

    /// It says something on each connection.
    fn speak(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A client's end of a connection.
struct Line {
    stream: TcpStream,
    asked: u64,
    answered: u64,
    news: u64,
}

/// Connections of one client.
struct Lines {
    all: Vec<Line>,
}

impl Lines {
    /// So many connections, to one address after the other.
    fn open(place: &Place, to: &[SocketAddr], count: usize) -> Self {
        let connect = |at: &SocketAddr| {
            let stream = TcpStream::connect_timeout(at, Duration::from_secs(10));
            let stream = stream.unwrap_or_else(|error| panic!("no connection to {at}: {error}"));
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            Line { stream, asked: 0, answered: 0, news: 0 }
        };
        Self { all: place.run(|| to.iter().cycle().take(count).map(connect).collect()) }
    }

    fn ask(&mut self) {
        for line in &mut self.all {
            let written = line.stream.write(&[QUESTION]);
            assert!(matches!(written, Ok(1)), "a connection ended after {} answers: {written:?}", line.answered);
            line.asked += 1;
        }
    }

    /// Takes what has come. No connection has ended.
    fn look(&mut self) {
        let mut all: Vec<_> = self.all.iter().map(|line| PollFd::new(line.stream.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut all, PollTimeout::from(5_u8)).unwrap();
        let ready: Vec<bool> = all.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        for (line, _) in self.all.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            let mut buffer = [0; 256];
            match line.stream.read(&mut buffer) {
                Ok(0) => panic!("the other end closed a connection after {} answers", line.answered),
                Ok(len) => {
                    let news = buffer[..len].iter().filter(|byte| **byte == NEWS).count() as u64;
                    (line.news, line.answered) = (line.news + news, line.answered + len as u64 - news);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("a connection ended after {} answers: {error}", line.answered),
            }
        }
    }

    /// What has come: answers and news.
    fn heard(&self) -> u64 {
        self.all.iter().map(|line| line.answered + line.news).sum()
    }

    /// Connections that have no answer to some question, or have not heard as much news as there was.
    fn waiting(&self, news: u64) -> usize {
        self.all.iter().filter(|line| line.answered < line.asked || line.news < news).count()
    }

    /// Everything that was said has come.
    fn await_all(&mut self, what: &str, news: u64) {
        within(GOES_ON_WITHIN, what, || {
            self.look();
            let waiting = self.waiting(news);
            if waiting == 0 { Ok(()) } else { Err(format!("{waiting} of {} wait", self.all.len())) }
        });
    }
}

/// How many TCP segments a Pod has sent again, and of how many it was told that they had come the first time, which were only late.
fn sent_again(place: &Place) -> [u64; 2] {
    let number = |file: &str, group: &str, name: &str| -> u64 {
        let text = place.run(|| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))).unwrap();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut both = names.split_whitespace().zip(values.split_whitespace());
        both.find_map(|(one, value)| (one == name).then(|| value.parse().unwrap())).unwrap()
    };
    [number("snmp", "Tcp:", "RetransSegs"), number("netstat", "TcpExt:", "TCPDSACKRecv")]
}

/// Endpoints may be asked by these.
fn rule(peers: &str, more: &str) -> String {
    format!("{{podSelector: {{matchLabels: {{field: 'yes'}}}}, ingress: [{{from: [{peers}]{more}}}]}}")
}

/// Pods of this role.
fn of_role(role: &str) -> String {
    format!("{{podSelector: {{matchLabels: {{role: {role}}}}}}}")
}

/// Each of these leaves `ask1` allowed; all of them are gone through again and again.
fn change(cluster: &Cluster, turn: usize, step: usize) {
    let ports = [", ports: [{port: 7001}]", ", ports: [{port: 7000, endPort: 7010}]"][turn % 2];
    match step {
        // Another policy allows it, too; then only that.
        0 => put(cluster, "also", &rule(&of_role("a"), ports)),
        1 => _ = cluster.kubectl(&["delete", "networkpolicy", "first"]),
        // It is allowed by its addresses instead of its labels.
        2 => {
            let own = cluster.addresses("ask1");
            let blocks = own
                .iter()
                .map(|own| format!("{{ipBlock: {{cidr: {own}/{}}}}}", if own.contains(':') { 128 } else { 32 }));
            put(cluster, "first", &rule(&blocks.collect::<Vec<_>>().join(", "), ports));
            cluster.kubectl(&["delete", "networkpolicy", "also"]);
        }
        _ => put(cluster, "first", &rule(&of_role("a"), "")),
    }
}

/// Connections of `ask1` are always allowed, those of `ask2` not always; half of each are to the own node.
pub(crate) fn while_policies_change(cluster: &Cluster) {
    let field = Field::of(cluster);
    let count = std::env::var("SLUICE_KUBE_CONNECTIONS").ok().and_then(|text| text.parse().ok());
    let half = count.unwrap_or(CONNECTIONS) / 2;
    let pods = ["e1", "e2"].map(|pod| (Place::pod(cluster, pod), with_port(&cluster.addresses(pod), PORT)));
    let mut servers = pods.each_ref().map(|(place, at)| Server::start(place, at));
    let to: Vec<SocketAddr> = pods.into_iter().flat_map(|(_, at)| at).collect();
    put(cluster, "first", &rule(&of_role("a"), ""));
    put(cluster, "second", &rule(&of_role("b"), ""));
    cluster.kubectl(&["label", "--overwrite", "pod", "ask1", "role=a"]);
    cluster.kubectl(&["label", "--overwrite", "pod", "ask2", "role=b"]);
    each([&field.c1, &field.c2], |place| {
        each(&to, |at| {
            within(20, "the policies", || {
                place
                    .run(|| TcpStream::connect_timeout(at, Duration::from_secs(1)))
                    .map(drop)
                    .map_err(|e| e.to_string())
            })
        });
    });
    let begin = Instant::now();
    let [mut kept, mut flipped] = [&field.c1, &field.c2].map(|place| Lines::open(place, &to, half));
    println!("{} connections after {:.1} s", 2 * half, begin.elapsed().as_secs_f64());
    let before = sent_again(&field.c1);
    let (ended, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut changes, mut news) = (0, 0);
    let longest = thread::scope(|scope| {
        // They ask all the time, and each question is answered before the next.
        let asking = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !ended.load(Ordering::Relaxed) {
                let begin = Instant::now();
                kept.ask();
                kept.await_all("every answer to who is allowed all the time", 0);
                longest = longest.max(begin.elapsed());
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            longest
        });
        let work = || {
            for turn in 0..3 {
                for step in 0..4 {
                    change(cluster, turn, step);
                    changes += 1;
                    let before = rounds.load(Ordering::Relaxed);
                    within(GOES_ON_WITHIN, "those that are allowed to go on", || {
                        assert!(!asking.is_finished(), "an allowed connection was cut");
                        if rounds.load(Ordering::Relaxed) > before + 1 { Ok(()) } else { Err("no round".to_owned()) }
                    });
                    flipped.ask();
                    flipped.await_all("an answer to who is allowed", news);
                }
                // By its label, by its policy, by one of the whole Pod.
                match turn {
                    0 => drop(cluster.kubectl(&["label", "pod", "ask2", "role-"])),
                    1 => drop(cluster.kubectl(&["delete", "networkpolicy", "second"])),
                    _ => put(cluster, "second", &rule(&of_role("b"), ", ports: [{port: 7999}]")),
                }
                hear_nothing(&mut flipped, &mut servers, &mut news);
                changes += 1;
                cluster.kubectl(&["label", "--overwrite", "pod", "ask2", "role=b"]);
                put(cluster, "second", &rule(&of_role("b"), ""));
                flipped.await_all("those that are allowed again to go on", news);
                changes += 1;
            }
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        ended.store(true, Ordering::Relaxed);
        let longest = asking.join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        longest.unwrap()
    });
    kept.await_all("all news", news);
    let after = sent_again(&field.c1);
    let [again, late] = [0, 1].map(|n| after[n] - before[n]);
    let questions = kept.all.len() as u64 * rounds.into_inner();
    println!(
        "{changes} changes, {half} connections allowed all the time: {questions} questions answered, the longest round {:.1} s, \
         {again} segments sent again of which {late} were only late; {half} denied three times: nothing came through",
        longest.as_secs_f64()
    );
    cluster.kubectl(&["delete", "networkpolicy", "first", "also", "second", "--ignore-not-found"]);
    cluster.kubectl(&["label", "pod", "ask1", "ask2", "role-"]);
}

/// Nothing comes by connections that are denied, neither answers nor what the other end says by itself.
fn hear_nothing(lines: &mut Lines, servers: &mut [Server], news: &mut u64) {
    // What was said before the change was in force may come yet.
    within(GOES_ON_WITHIN, "denied connections to be quiet", || {
        let before = lines.heard();
        servers.iter_mut().for_each(Server::speak);
        *news += 1;
        lines.ask();
        let begin = Instant::now();
        while begin.elapsed() < SILENCE {
            lines.look();
        }
        if lines.heard() == before { Ok(()) } else { Err(format!("{} came", lines.heard() - before)) }
    });
    assert_eq!(lines.waiting(*news), lines.all.len(), "all of them are denied");
}
