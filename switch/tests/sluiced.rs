//! The daemon as a process, in a network namespace of its own: start, reload, end, and what it leaves behind.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::status_service_client::StatusServiceClient;
use sluice_proto::v1::{GetStatusReply, GetStatusRequest, ListPortsRequest};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for anything, in seconds.
const PATIENCE: u64 = 30;

/// A running daemon; killed on drop.
struct Daemon {
    child: Child,
    log: Receiver<String>,
    socket: PathBuf,
}

impl Daemon {
    /// Starts the daemon in the calling thread's network namespace and waits until it is ready.
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut daemon = Self::launch(folder, args);
        daemon.wait_for("ready");
        daemon
    }

    fn launch(folder: &Path, args: &[&str]) -> Self {
        let socket = folder.join("s.sock");
        let mut child = command(&socket, args).stderr(Stdio::piped()).spawn().expect("the daemon was built");
        let (sender, log) = channel();
        let stderr = child.stderr.take().expect("it is piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, log, socket }
    }

    /// Reads the log up to a line that holds `text`, and returns that line.
    fn wait_for(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Ok(line) = self.log.recv_timeout(Duration::from_secs(PATIENCE)) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no `{text}` in the log:\n{}", seen.join("\n"));
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    fn end(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }

    fn call<T>(&self, ask: impl AsyncFnOnce(Channel) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket.display())).unwrap();
            ask(endpoint.connect().await.unwrap()).await
        })
    }

    fn status(&self) -> GetStatusReply {
        self.call(async |channel| {
            StatusServiceClient::new(channel).get_status(GetStatusRequest {}).await.unwrap().into_inner()
        })
    }

    fn ports(&self) -> Vec<String> {
        self.call(async |channel| {
            let mut client = PortServiceClient::new(channel);
            let mut stream = client.list_ports(ListPortsRequest::default()).await.unwrap().into_inner();
            let ports = stream.message().await.unwrap().unwrap_or_default().ports;
            ports.into_iter().filter_map(|p| p.spec).map(|s| format!("{} {}", s.number, s.name)).collect()
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn command(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluiced"));
    command.args(args).arg("--socket").arg(socket).env_remove("NOTIFY_SOCKET").env_remove("SLUICED_CONFIG");
    command
}

/// Runs `test` on a thread with a network namespace of its own, which goes with the thread and its children. Without
/// the privilege to make one (or a TAP), the test is skipped, and says so.
fn in_a_namespace(test: impl FnOnce(&Path) + Send + 'static) {
    let run = move || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) if !Path::new("/dev/net/tun").exists() => eprintln!("skipped: there is no /dev/net/tun"),
        Ok(()) => test(tempfile::tempdir().unwrap().path()),
        Err(Errno::EPERM) => eprintln!("skipped: only root may make a network namespace"),
        Err(error) => panic!("cannot make a network namespace: {error}"),
    };
    std::thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// The interfaces of the calling thread's network namespace, without `lo`.
fn interfaces() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = text.lines().skip(2).filter_map(|l| l.split(':').next()).map(|n| n.trim().to_owned());
    names.filter(|n| n != "lo").collect()
}

#[test]
fn without_a_file_there_is_one_bridge_and_after_the_end_there_is_nothing() {
    in_a_namespace(|folder| {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let daemon = Daemon::start(folder, &[]);
            let status = daemon.status();
            assert_eq!((status.bridges, status.ports, status.flows, status.pid), (1, 1, 1, daemon.child.id()));
            assert_eq!(interfaces(), ["br0"]);
            assert_eq!(daemon.ports(), ["65534 br0"]);
            assert_eq!(daemon.end(signal).code(), Some(0));
            assert_eq!(interfaces(), Vec::<String>::new());
            assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
        }
    });
}

#[test]
fn a_killed_daemon_leaves_a_socket_that_the_next_one_replaces() {
    in_a_namespace(|folder| {
        let daemon = Daemon::start(folder, &[]);
        assert_eq!(daemon.end(Signal::SIGKILL).code(), None);
        assert!(folder.join("s.sock").exists());
        let daemon = Daemon::start(folder, &[]);
        assert_eq!(daemon.status().bridges, 1);
    });
}

#[test]
fn a_second_daemon_on_the_socket_is_refused_before_it_makes_anything() {
    in_a_namespace(|folder| {
        let first = Daemon::start(folder, &[]);
        let second = command(&first.socket, &[]).output().unwrap();
        let error = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(1), "{error}");
        assert!(error.starts_with("error: another sluiced answers on "), "{error}");
        assert_eq!(first.status().bridges, 1);
        assert_eq!(interfaces(), ["br0"]);
    });
}

#[test]
fn a_reload_changes_what_differs_and_a_bad_file_changes_nothing() {
    in_a_namespace(|folder| {
        let file = folder.join("sluiced.toml");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write(
            "[bridges.br0]\nflows = ['actions=NORMAL', 'priority=9,tcp actions=drop']\n\
             [bridges.br0.ports.t1]\ntype = 'tap'\n[bridges.br0.ports.t2]\ntype = 'tap'\n",
        );
        let mut daemon = Daemon::start(folder, &["--config", file.to_str().unwrap()]);
        assert_eq!(daemon.ports(), ["1 t1", "2 t2", "65534 br0"]);

        write("[bridges.br0]\nflows = ['actions=NROMAL']\n");
        daemon.signal(Signal::SIGHUP);
        let line = daemon.wait_for("has a fault");
        assert!(line.contains("sluiced.toml:2:19: "), "{line}");
        assert_eq!(daemon.ports(), ["1 t1", "2 t2", "65534 br0"]);

        write(
            "[bridges.br0]\nflows = ['actions=NORMAL']\n[bridges.br0.ports.t1]\ntype = 'tap'\naccess = 10\n\
             [bridges.br0.ports.t3]\ntype = 'tap'\nnumber = 7\n[bridges.br1]\nlocal_port = false\n",
        );
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("reloaded");
        assert_eq!(daemon.ports(), ["1 t1", "7 t3", "65534 br0"]);
        let mut names = interfaces();
        names.sort();
        assert_eq!(names, ["br0", "t1", "t3"]);
        let status = daemon.status();
        // NORMAL of br0, and the default flow of br1.
        assert_eq!((status.bridges, status.flows), (2, 2));
        assert_eq!(daemon.end(Signal::SIGTERM).code(), Some(0));
        assert_eq!(interfaces(), Vec::<String>::new());
    });
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_ends() {
    in_a_namespace(|folder| {
        let told = UnixDatagram::bind(folder.join("notify")).unwrap();
        told.set_read_timeout(Some(Duration::from_secs(PATIENCE))).unwrap();
        let mut child =
            command(&folder.join("s.sock"), &[]).env("NOTIFY_SOCKET", folder.join("notify")).spawn().unwrap();
        let next = || {
            let mut text = [0; 64];
            let len = told.recv(&mut text).expect("a word in time");
            String::from_utf8_lossy(&text[..len]).into_owned()
        };
        assert_eq!(next(), "READY=1");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(next(), "STOPPING=1");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_bad_file_is_refused_with_its_place_and_the_usage_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sluiced.toml");
    for (text, want) in [
        (
            "[bridges.br0]\nlocal_prot = false\n",
            "sluiced.toml:2:1: unknown key `local_prot`; did you mean `local_port`?",
        ),
        ("[bridges.br0]\nflows = ['nw_dts=1 actions=drop']\n", "sluiced.toml:2:11: "),
        (
            "[bridges.br0.ports.p1]\ntype = 'tap'\noptions = { mtuu = 1 }\n",
            "sluiced.toml:3:13: a port of type tap has no option `mtuu`",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let args = ["--check-config", "--config", file.to_str().unwrap()];
        let out = command(&folder.path().join("s.sock"), &args).output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{error}");
        assert!(error.starts_with("error: ") && error.contains(want), "{error}");
    }
    std::fs::write(&file, "[bridges.br0]\n").unwrap();
    let args = ["--check-config", "--config", file.to_str().unwrap()];
    assert!(command(&folder.path().join("s.sock"), &args).output().unwrap().status.success());
}

#[test]
fn a_socket_that_cannot_be_made_ends_it_before_it_starts() {
    // Nobody may make a folder in /proc, root included.
    let out = command(Path::new("/proc/sluice/s.sock"), &[]).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(error.contains("cannot listen on /proc/sluice/s.sock: "), "{error}");
    assert_ne!(out.status.code(), Some(0));
}

#[test]
fn the_example_configurations_are_good() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/switch");
    for name in ["sluiced.toml", "vlan.toml", "gateway.toml"] {
        let example = examples.join(name);
        let args = ["--check-config", "--config", example.to_str().unwrap()];
        let out = command(Path::new("/nonexistent"), &args).output().unwrap();
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
