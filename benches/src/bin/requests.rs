//! New connections a second, and how soon single requests are answered: the two ends of `benches/ports.sh`.
//!
//! `requests serve ADDRESS:PORT` answers every TCP connection with the byte that it gets, and closes it; it sends every UDP datagram
//! back. `requests connections ADDRESS:PORT SECONDS` prints how many connections a second four clients make, each one after the other:
//! connect, one byte each way, close. `requests latency ADDRESS:PORT SECONDS PAUSE` sends one datagram of 64 bytes after the other, each so
//! many milliseconds after the answer to the one before, and prints the median and the 99th percentile of the round trips, in
//! microseconds.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

type Outcome = Result<(), Box<dyn Error>>;

/// Clients that make connections at the same time, and threads that answer them.
const CLIENTS: usize = 4;
/// How long anything may take; then it is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a request, and of its answer.
const SIZE: usize = 64;
/// Requests before those that count.
const WARMUP: u32 = 10;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", address] => serve(address.parse()?),
        ["connections", address, seconds] => connections(address.parse()?, Duration::from_secs(seconds.parse()?)),
        ["latency", address, seconds, pause] => {
            latency(address.parse()?, Duration::from_secs(seconds.parse()?), Duration::from_millis(pause.parse()?))
        }
        _ => Err("usage: requests serve ADDRESS:PORT | requests connections ADDRESS:PORT SECONDS | \
            requests latency ADDRESS:PORT SECONDS PAUSE"
            .into()),
    }
}

fn serve(address: SocketAddr) -> Outcome {
    let (listener, socket) = (TcpListener::bind(address)?, UdpSocket::bind(address)?);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            // A client that is gone already is nobody's concern.
            scope.spawn(|| listener.incoming().flatten().for_each(|client| _ = answer(client)));
        }
        let mut bytes = [0; SIZE];
        loop {
            let (len, from) = socket.recv_from(&mut bytes)?;
            // An answer that finds no way is the client's to miss.
            _ = socket.send_to(&bytes[..len], from);
        }
    })
}

/// The server closes first, so that what a connection leaves behind is on its side, and clients do not run out of ports.
fn answer(mut client: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    client.set_read_timeout(Some(PATIENCE))?;
    client.read_exact(&mut byte)?;
    client.write_all(&byte)
}

fn connections(address: SocketAddr, time: Duration) -> Outcome {
    let start = Instant::now();
    let client = || {
        let mut made = 0_u32;
        while start.elapsed() < time {
            made += u32::from(connect(address).is_ok());
        }
        made
    };
    let made: u32 = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().filter_map(|client| client.join().ok()).sum()
    });
    if made == 0 {
        return Err("no connection was answered".into());
    }
    println!("{:.1}", f64::from(made) / start.elapsed().as_secs_f64());
    Ok(())
}

fn connect(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[1])?;
    let mut rest = Vec::with_capacity(1);
    match stream.read_to_end(&mut rest)? {
        1 => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn latency(address: SocketAddr, time: Duration, pause: Duration) -> Outcome {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut took: Vec<Duration> = Vec::new();
    let (start, mut number) = (Instant::now(), 0);
    while start.elapsed() < time {
        number += 1;
        let sent = Instant::now();
        // One that is lost has no time.
        if request(&socket, number).is_ok() && number > WARMUP {
            took.push(sent.elapsed());
        }
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    took.sort_unstable();
    let us = |share: usize| took.get(took.len() * share / 100).map(|took| took.as_nanos() as f64 / 1e3);
    let (Some(p50), Some(p99)) = (us(50), us(99)) else { return Err("no request was answered".into()) };
    println!("{p50:.1} {p99:.1}");
    Ok(())
}

/// Sends a request and waits for its answer; one to an earlier request does not count.
fn request(socket: &UdpSocket, number: u32) -> io::Result<()> {
    let mut bytes = [0; SIZE];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    socket.send(&bytes)?;
    loop {
        socket.recv(&mut bytes)?;
        if bytes[..4] == number.to_be_bytes() {
            return Ok(());
        }
    }
}
