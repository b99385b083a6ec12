//! Programs that run in a namespace.

use crate::netns::Netns;
use crate::switch::wait_until;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where the programs are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Runs it in a namespace, with all that it starts, until it is dropped.
    pub fn start(netns: &Netns, words: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        // The shell is what gets the signal, and all the others go with it: a server that has changed its user would
        // not.
        command.args(["--pid", "--fork", "--kill-child=KILL", "sh", "-c", "\"$@\" & wait", "sh"]).args(words);
        command.env("PATH", PATH).stdin(Stdio::null());
        Self(netns.run(|| command.spawn()).expect("the program starts"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// An FTP server for everybody, which listens on `address` and serves the files of a folder.
pub fn ftp_server(netns: &Netns, address: SocketAddr, folder: &Path) -> Running {
    let config = folder.join("vsftpd.conf");
    let text = format!(
        "listen=NO\nlisten_ipv6=YES\nbackground=NO\nanonymous_enable=YES\nno_anon_password=YES\nanon_root={}\n\
         connect_from_port_20=YES\nseccomp_sandbox=NO\nxferlog_enable=NO\n",
        folder.display(),
    );
    fs::write(&config, text).expect("the folder is writable");
    let running = Running::start(netns, &["vsftpd", &config.to_string_lossy()]);
    let listens = || netns.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok());
    wait_until("the FTP server listens", listens);
    running
}

/// Runs a program to its end, which comes within 30 seconds: its exit code, and what it prints.
pub fn run(netns: &Netns, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("timeout");
    command.arg("30").args(words).env("LC_ALL", "C").env("PATH", PATH).stdin(Stdio::null());
    let output = netns.run(|| command.output()).expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}
