//! `sluice lab serve`: a server for tests of a network. It answers every TCP connection with its host's name.

use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde_json::json;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long a client may take to close its connection.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long to wait when there are too many connections.
const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `sluice lab serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab exec h2 -- sluice lab serve 80    then, elsewhere: sluice lab exec h1 -- nc 10.0.0.2 80
  hosts: {web: {run: \"sluice lab serve 80\"}}   in a file; sluice lab logs web shows who came

It listens on IPv4 and IPv6 and prints where each connection comes from, until it is ended.")]
pub(crate) struct Serve {
    /// TCP port
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

/// Serves until the process is ended.
pub(crate) fn run(args: &Serve, out: &mut Output) -> Result<Exit, Failure> {
    let json = out.format(&[Format::Table, Format::Json])? == Format::Json;
    let failed = |error: io::Error| Failure::new(format!("cannot serve on port {}: {error}", args.port));
    let name = nix::unistd::gethostname().map_err(|errno| failed(errno.into()))?.to_string_lossy().into_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(serve(args.port, &format!("{name}\n"), json, out)).map_err(failed)
}

async fn serve(port: u16, answer: &str, json: bool, out: &mut Output) -> io::Result<Exit> {
    let listener = listen(port).await?;
    loop {
        // No more descriptors, or a client that has given up: neither is the end.
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        match json {
            true => out.json(&json!({"from": from.to_string()}))?,
            false => out.line(format!("connection from {from}"))?,
        }
        out.flush()?;
        let answer = answer.to_owned();
        tokio::spawn(async move { _ = timeout(GOODBYE, talk(stream, &answer)).await });
    }
}

/// On IPv6, which takes IPv4 too; on IPv4 alone where the kernel has no IPv6.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

/// Answers, and waits for the client to close: a socket that is closed with something unread in it resets the connection,
/// and the answer may be lost.
async fn talk(mut stream: TcpStream, answer: &str) -> io::Result<()> {
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}
