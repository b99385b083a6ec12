use super::*;
use crate::metrics::Options;
use crate::program::Switch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Serves on loopback, with a switch that is away.
async fn served(health: Health) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = Options { bridge: "sluice0".into(), pods: false };
    let metrics = Metrics::new(Switch::away(), &options, health.clone(), |_| {});
    tokio::spawn(serve(listener, health, move || {
        let metrics = Arc::clone(&metrics);
        async move { metrics.page().await }
    }));
    address
}

async fn ask(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_part_that_is_not_well_is_named_and_stops_readiness_but_not_life() {
    let health = Health::default();
    health.set("lists", Ok(()));
    health.set("switch", Err("nothing listens on /run/sluice/switch.sock".to_owned()));
    let address = served(health.clone()).await;
    let (status, text) = ask(address, "/readyz").await;
    let want = "[-]switch failed: nothing listens on /run/sluice/switch.sock\nreadyz check failed\n";
    assert_eq!((status, text.as_str()), (503, want));
    assert_eq!(ask(address, "/livez").await, (200, "ok".to_owned()));
    let (_, text) = ask(address, "/readyz?verbose").await;
    assert!(text.starts_with("[+]lists ok\n[-]switch failed: "), "{text}");
    health.set("switch", Ok(()));
    assert_eq!(ask(address, "/readyz").await, (200, "ok".to_owned()));
    let (status, text) = ask(address, "/readyz?verbose").await;
    assert_eq!((status, text.as_str()), (200, "[+]lists ok\n[+]switch ok\n[+]program ok\nreadyz check passed\n"));
}

#[tokio::test]
async fn a_part_that_is_looked_at_is_looked_at_each_time() {
    let health = Health::default();
    let well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&well);
    health.look("switch", move || {
        if seen.load(std::sync::atomic::Ordering::Relaxed) { Ok(()) } else { Err("away".to_owned()) }
    });
    assert_eq!(health.parts(), [("switch", Err("away".to_owned()))]);
    well.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(health.parts(), [("switch", Ok(()))]);
}

#[test]
fn a_program_that_has_come_to_a_stop_is_not_alive() {
    let (health, now) = (Health::default(), Instant::now());
    assert_eq!(health.alive(now + 2 * ALIVE_FOR), Ok(()), "one that never said so is not measured by it");
    health.beat();
    assert_eq!(health.alive(now), Ok(()));
    assert!(health.alive(Instant::now() + ALIVE_FOR).is_err());
}

#[tokio::test]
async fn metrics_are_served_while_the_switch_is_away() {
    let address = served(Health::default()).await;
    let (status, text) = ask(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("sluice_switch_up 0"), "{text}");
    assert!(text.contains("# TYPE process_cpu_seconds counter"), "{text}");
    assert_eq!(ask(address, "/other").await.0, 404);
}

#[tokio::test]
async fn what_is_only_told_is_in_the_verbose_answer_and_stops_no_readiness() {
    let health = Health::default();
    health.set("node", Ok(()));
    health.tell("api-server", || Err("no API server answers".to_owned()));
    let address = served(health.clone()).await;
    assert_eq!(ask(address, "/readyz").await, (200, "ok".to_owned()));
    let (status, text) = ask(address, "/readyz?verbose").await;
    assert_eq!(status, 200);
    assert!(text.contains("[-]api-server failed: no API server answers\n"), "{text}");
    assert!(health.parts().iter().all(|(name, _)| *name != "api-server"));
}

#[tokio::test]
async fn a_probe_tells_what_is_wrong_and_knows_another_programs_answer() {
    let health = Health::default();
    let address = served(health.clone()).await;
    let probe = |address, probe: &'static str| tokio::task::spawn_blocking(move || super::ask(address, probe));
    assert_eq!(probe(address, "readyz").await.unwrap(), Ok("ok".to_owned()));
    health.set("node", Err("waiting".to_owned()));
    let said = probe(address, "readyz").await.unwrap();
    assert_eq!(said, Err("[-]node failed: waiting\nreadyz check failed".to_owned()));

    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap();
    tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = other.accept().await.unwrap();
            let mut bytes = [0; 512];
            _ = stream.read(&mut bytes).await.unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nok").await.unwrap();
        }
    });
    let said = probe(address, "readyz").await.unwrap().unwrap_err();
    assert!(said.starts_with("another program answers at ") && said.contains("metrics_address"), "{said}");
    assert!(probe(address, "livez").await.unwrap().is_ok(), "a new start would not bring the port");
}
