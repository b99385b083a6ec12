//! Traffic between hosts, each exchange with its bytes compared: it panics when something is lost or changed.

use crate::host::{Host, PATIENCE};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Echo requests until a ping gives up, and how long each waits for its answer.
const ATTEMPTS: usize = 40;
const ATTEMPT: Duration = Duration::from_millis(500);
const ICMP_LEN: usize = 8;
const IPV4_LEN: usize = 20;

/// Sends an echo request with `len` bytes of payload and waits for the answer.
pub fn ping(from: &Host, to: IpAddr, len: usize) {
    echo(from, to, len, PATIENCE).unwrap_or_else(|e| panic!("{to}, {len} bytes: {e}"));
}

/// Sends echo requests until one is answered: those that wait for a neighbour's address may be pushed out of the
/// kernel's queue by other traffic.
pub fn ping_until_answered(from: &Host, to: IpAddr) {
    let answered = (0..ATTEMPTS).any(|_| echo(from, to, 56, ATTEMPT).is_ok());
    assert!(answered, "{to} answers none of {ATTEMPTS} requests");
}

fn echo(from: &Host, to: IpAddr, len: usize, patience: Duration) -> io::Result<()> {
    let (request, reply) = if to.is_ipv4() { (8, 0) } else { (128, 129) };
    let mut message = vec![request, 0, 0, 0, 0x51, 0x1c, 0, 1];
    message.extend(pattern(len, 253, 0));
    if to.is_ipv4() {
        // The kernel fills in the one of ICMPv6.
        let sum = internet_checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let socket = from.icmp(to);
    socket.set_read_timeout(Some(patience))?;
    socket.send_to(&message, (to, 0))?;
    let mut buffer = vec![0; 65_535];
    // The socket hears other messages too, which must not make it wait for ever.
    let begin = Instant::now();
    while begin.elapsed() < patience {
        let (got, who) = socket.recv_from(&mut buffer)?;
        let start = if to.is_ipv4() { IPV4_LEN } else { 0 };
        let answer = &buffer[start.min(got)..got];
        if who.ip() == to && answer.first() == Some(&reply) && answer.len() >= ICMP_LEN {
            assert!(answer[4..] == message[4..], "the echo of {len} bytes from {to} differs");
            return Ok(());
        }
    }
    Err(ErrorKind::TimedOut.into())
}

fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// A datagram to a port where nobody listens is answered by an ICMP error.
pub fn a_closed_port_is_told(from: &Host, to: IpAddr) {
    let socket = from.udp(to);
    socket.connect((to, 9)).expect("connect");
    socket.send(b"anyone?").expect("send");
    let answer = socket.recv(&mut [0; 8]).expect_err("nobody listens");
    assert_eq!(answer.kind(), ErrorKind::ConnectionRefused);
}

/// Datagrams of these lengths go from one host to the other and come back.
pub fn datagrams(a: &Host, b: &Host, to: IpAddr, lengths: impl IntoIterator<Item = usize>) {
    let (near, far) = (a.udp(to), b.udp(to));
    near.connect(far.local_addr().expect("an address")).expect("connect");
    let mut buffer = vec![0; 65_535];
    for len in lengths {
        let sent = pattern(len, 251, 0);
        assert_eq!(near.send(&sent).expect("send"), len);
        let (got, from) = far.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{len} bytes to {to}: {e}"));
        assert!(buffer[..got] == sent, "a datagram of {len} bytes to {to} changed on its way");
        assert_eq!(far.send_to(&sent, from).expect("send"), len);
        let got = near.recv(&mut buffer).unwrap_or_else(|e| panic!("{len} bytes back from {to}: {e}"));
        assert!(buffer[..got] == sent, "a datagram of {len} bytes from {to} changed on its way");
    }
}

/// A batch of datagrams that the sender's kernel gives as one frame, if the port takes that.
pub fn a_batch_of_datagrams(a: &Host, b: &Host) {
    let (near, far) = (a.udp(b.v4), b.udp(b.v4));
    near.connect(far.local_addr().expect("an address")).expect("connect");
    // The first one finds the neighbour, so that the batch is not held back.
    near.send(b"hello").expect("send");
    far.recv(&mut [0; 8]).expect("receive");
    setsockopt(&near, UdpGsoSegment, &1000).expect("ask for segmentation");
    let sent: Vec<u8> = (0..9500).map(|i| (i / 1000) as u8).collect();
    near.send(&sent).expect("send");
    let mut buffer = [0; 2000];
    for datagram in sent.chunks(1000) {
        let len = far.recv(&mut buffer).expect("receive");
        assert_eq!(&buffer[..len], datagram);
    }
}

/// A TCP stream with `len` bytes each way at the same time, from `a` to where `b` listens.
pub fn stream(a: &Host, b: &Host, to: IpAddr, len: usize) {
    let listener = b.listen(to, 0);
    let address = listener.local_addr().expect("an address");
    stream_to(a, address, listener, len);
}

/// A TCP stream with `len` bytes each way at the same time, from `a` to `address`, which leads to `listener`.
pub fn stream_to(a: &Host, address: SocketAddr, listener: TcpListener, len: usize) {
    // Whoever fails first, the other ends too: connect, read and write have their limits.
    listener.set_nonblocking(false).expect("make the listener wait");
    let near = a.netns.run(|| TcpStream::connect_timeout(&address, PATIENCE));
    let near = near.unwrap_or_else(|e| panic!("connect to {address}: {e}"));
    let far = thread::spawn(move || exchange(&listener.accept().expect("accept").0, len, 1, 2));
    exchange(&near, len, 2, 1);
    far.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn exchange(stream: &TcpStream, len: usize, ours: u8, theirs: u8) {
    stream.set_read_timeout(Some(PATIENCE)).expect("set the timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("set the timeout");
    let mut writer = stream.try_clone().expect("clone the stream");
    let sender = thread::spawn(move || writer.write_all(&pattern(len, 241, ours)).expect("write"));
    let mut got = vec![0; len];
    { stream }.read_exact(&mut got).expect("read");
    assert!(got == pattern(len, 241, theirs), "the stream's bytes changed on their way");
    sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn pattern(len: usize, period: usize, from: u8) -> Vec<u8> {
    (0..len).map(|i| (i % period) as u8 ^ from).collect()
}

/// Receives until `marker` and one datagram that is not it came, or until a wait ends; returns how many were not it.
pub fn count_until(socket: &UdpSocket, marker: &[u8], at_least: usize) -> usize {
    let mut buffer = [0; 2000];
    let (mut others, mut marked) = (0, false);
    while !marked || others < at_least {
        let got = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{others} and marker {marked}, then: {e}"));
        if &buffer[..got] == marker { marked = true } else { others += 1 }
    }
    socket.set_nonblocking(true).expect("make the socket not wait");
    while let Ok(got) = socket.recv(&mut buffer) {
        others += usize::from(&buffer[..got] != marker);
    }
    others
}
