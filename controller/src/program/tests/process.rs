//! A switch that is another process, which is killed.

use super::*;
use std::process::{Child, Command, Stdio};

/// Says to a process of this test program in which folder it is to be a switch.
const FOLDER: &str = "SLUICE_TEST_SWITCH_FOLDER";

/// What the other process does.
#[test]
#[ignore = "it is a switch for the test below"]
fn serve() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let _daemon = Daemon::start(Path::new(&folder));
    loop {
        std::thread::park();
    }
}

/// Killed when dropped, as the kernel kills.
struct Process(Child);

impl Process {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "program::tests::process::serve"]).env(FOLDER, folder);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_was_killed_has_everything_when_it_is_back() {
    let mut node = Node::new();
    for n in 1..=50 {
        node.program.set(service(&format!("shop/s{n}")), service_part(n, 3));
    }
    node.program.ready();
    let mut before = None;
    for round in 0..3 {
        let process = Process::start(node.path());
        assert_eq!(node.event().await, Event::Connected { new_switch: true });
        node.settled().await.unwrap();
        let now = (node.our_flows().await, node.groups().await);
        assert_eq!((now.0.len(), now.1.len()), (50, 50));
        assert_eq!(*before.get_or_insert(now.clone()), now, "round {round}");
        if round == 1 {
            // In the midst of changes.
            for n in 1..=50 {
                node.program.set(service(&format!("shop/s{n}")), service_part(n, 4));
                tokio::task::yield_now().await;
                node.program.set(service(&format!("shop/s{n}")), service_part(n, 3));
            }
        }
        drop(process);
        assert!(node.path().join("s.sock").exists(), "what is killed leaves its socket");
        assert_eq!(node.event().await, Event::Lost);
    }
}

/// It does not answer, but its connection stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_else_on_the_socket_is_no_switch() {
    let node = Node::new();
    let _listener = tokio::net::UnixListener::bind(node.path().join("s.sock")).unwrap();
    node.program.set(service("shop/s1"), service_part(1, 1));
    node.program.ready();
    let status = node.until("told", |s| s.last_error.is_some()).await;
    assert!(!status.connected, "{status:?}");
}
