//! Sees from a client's side when a Service changes: the two ends of `benches/services.sh`.
//!
//! `service-probe serve` takes connections on two TCP ports of every address, and says by which one each came: `a` on 8001, `b` on
//! 8002. `service-probe watch ADDRESS:PORT` connects over and over, each time from another port, and prints, whenever the answer is
//! another one than before, the time in microseconds since 1970 and the answer: a port's letter, or `-` where there was none.

use std::error::Error;
use std::io::{Read, Write, stdout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PORTS: [(u16, u8); 2] = [(8001, b'a'), (8002, b'b')];
/// How long an answer may take: a first packet that is lost is not waited for to be sent again.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two connections.
const PAUSE: Duration = Duration::from_millis(2);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve"] => serve(),
        ["watch", address] => watch(address.parse()?),
        _ => Err("usage: service-probe serve | service-probe watch ADDRESS:PORT".into()),
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

fn watch(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut before = None;
    loop {
        let answer = ask(address).unwrap_or(b'-');
        if before != Some(answer) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
            writeln!(stdout(), "{now} {}", char::from(answer))?;
            before = Some(answer);
        }
        thread::sleep(PAUSE);
    }
}

fn ask(address: SocketAddr) -> std::io::Result<u8> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer[0])
}
