//! Sees from a client's side when a Service or a policy changes: the two ends of `benches/services.sh` and `benches/policies.sh`.
//!
//! `service-probe serve` takes connections on two TCP ports of every address, and says by which one each came: `a` on 8001, `b` on
//! 8002. `service-probe watch ADDRESS:PORT [CLIENTS [PATIENCE]]` connects over and over, each time from another port, by so many
//! clients that take turns (1), and waits so many milliseconds for an answer (200). A client prints, whenever the answer is another
//! one than before, the time in microseconds since 1970 and the answer: a port's letter when it came, or `-` where none came, with
//! the time when it was asked for.

use std::error::Error;
use std::io::{Read, Write, stdout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PORTS: [(u16, u8); 2] = [(8001, b'a'), (8002, b'b')];
/// How long an answer may take: a first packet that is lost is not waited for to be sent again.
const PATIENCE_MS: u64 = 200;
/// Between two connections.
const PAUSE: Duration = Duration::from_millis(2);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve"] => serve(),
        ["watch", address] => watch(address.parse()?, 1, PATIENCE_MS),
        ["watch", address, clients] => watch(address.parse()?, clients.parse()?, PATIENCE_MS),
        ["watch", address, clients, patience] => watch(address.parse()?, clients.parse()?, patience.parse()?),
        _ => Err("usage: service-probe serve | service-probe watch ADDRESS:PORT [CLIENTS [PATIENCE]]".into()),
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let listeners = PORTS.map(|(port, name)| (TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)), name));
    let mut threads = Vec::new();
    for (listener, name) in listeners {
        let listener = listener?;
        threads.push(thread::spawn(move || {
            // A client that is gone already is nobody's concern.
            listener.incoming().flatten().for_each(|mut client| _ = client.write_all(&[name]));
        }));
    }
    threads.into_iter().for_each(|thread| _ = thread.join());
    Ok(())
}

fn watch(address: SocketAddr, clients: u32, patience_ms: u64) -> Result<(), Box<dyn Error>> {
    let (patience, pause) = (Duration::from_millis(patience_ms), PAUSE * clients);
    let client = |number: u32| {
        // One after the other.
        thread::sleep(PAUSE * number);
        let mut before = None;
        loop {
            let asked = now_us();
            let (when, answer) = ask(address, patience).map_or((asked, b'-'), |answer| (now_us(), answer));
            if before != Some(answer) {
                // Nobody reads any more: the run is over.
                if writeln!(stdout(), "{when} {}", char::from(answer)).is_err() {
                    return;
                }
                before = Some(answer);
            }
            thread::sleep(pause);
        }
    };
    thread::scope(|scope| (0..clients).for_each(|number| _ = scope.spawn(move || client(number))));
    Ok(())
}

fn now_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros())
}

fn ask(address: SocketAddr, patience: Duration) -> std::io::Result<u8> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer[0])
}
