//! What a test sends from its host, and what comes back. To be called by a thread in the host's network namespace.

use sluice_switch::echo::Echo;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Echo requests of a ping.
const PROBES: u16 = 5;
/// Longest time from one to the next, if the one before is not answered.
const EVERY: Duration = Duration::from_millis(200);
/// How long a server that has just been started may take to listen.
const START: Duration = Duration::from_secs(2);
/// From one attempt to connect to it to the next.
const AGAIN: Duration = Duration::from_millis(20);
/// How much longer a connection may take than an echo: its first segment is sent again after 1 s.
const RETRANSMISSION: Duration = Duration::from_millis(1500);

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// Of echo requests: how long those took that were answered.
    Ping { sent: u16, rtts: Vec<Duration>, error: Option<String> },
    /// The connection was made within this time.
    Connected(Duration),
    /// The other end refused it.
    Refused(Duration),
    /// Nothing came within this time, or the host's own stack says that nothing can.
    Silent { waited: Duration, error: Option<String> },
}

/// Pings. The first request has the whole of `patience` for itself, as finding the other's MAC address may take as long
/// as the echo; the others see the round trip alone.
pub(super) fn ping(to: IpAddr, patience: Duration) -> io::Result<Observed> {
    let echo = Echo::open([to.is_ipv4(), to.is_ipv6()])?;
    let mut sent: Vec<Instant> = Vec::new();
    let mut times = vec![None; PROBES.into()];
    let mut error = None;
    for sequence in 0..PROBES {
        sent.push(Instant::now());
        if let Err(refused) = echo.send(to, sequence) {
            error = Some(refused.to_string());
            continue;
        }
        let first_or_last = sequence == 0 || sequence + 1 == PROBES;
        let deadline = Instant::now() + if first_or_last { patience } else { EVERY };
        while times.iter().take(sent.len()).any(Option::is_none) && Instant::now() < deadline {
            echo.wait(deadline.saturating_duration_since(Instant::now()))?;
            echo.receive(|sequence| {
                let at = usize::from(sequence);
                if let (Some(time @ None), Some(sent)) = (times.get_mut(at), sent.get(at)) {
                    *time = Some(sent.elapsed());
                }
            })?;
        }
    }
    Ok(Observed::Ping { sent: PROBES, rtts: times.into_iter().flatten().collect(), error })
}

/// Connects and closes. A refusal is not taken for the answer while a server may still be starting, if it is `to_be_ok`.
pub(super) fn connect(to: SocketAddr, patience: Duration, to_be_ok: bool) -> io::Result<Observed> {
    let patience = patience + RETRANSMISSION;
    let begin = Instant::now();
    loop {
        let attempt = Instant::now();
        let result = TcpStream::connect_timeout(&to, patience);
        let took = attempt.elapsed();
        return Ok(match result {
            Ok(_) => Observed::Connected(took),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                if to_be_ok && begin.elapsed() < START {
                    sleep(AGAIN);
                    continue;
                }
                Observed::Refused(took)
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => Observed::Silent { waited: took, error: None },
            Err(error) => match error.kind() {
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::ConnectionReset => {
                    Observed::Silent { waited: took, error: Some(error.to_string()) }
                }
                _ => return Err(error),
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_connection_is_made_or_refused() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        assert!(matches!(connect(to, Duration::from_secs(5), true).unwrap(), Observed::Connected(_)));
        drop(server);
        assert!(matches!(connect(to, Duration::from_secs(5), false).unwrap(), Observed::Refused(_)));
    }

    #[test]
    fn a_server_may_take_its_time_to_start() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        drop(server);
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| connect(to, Duration::from_secs(5), true).unwrap());
            sleep(Duration::from_millis(100));
            let server = TcpListener::bind(to).unwrap();
            assert!(matches!(connecting.join().unwrap(), Observed::Connected(_)));
            drop(server);
        });
    }
}
