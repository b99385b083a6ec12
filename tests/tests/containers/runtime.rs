//! Containers that containerd runs: `ctr run --cni`.

use crate::node::{Container, NODE, Node, OUTSIDE, ip};
use sluice_tests::host::PATIENCE;
use sluice_tests::switch::wait_until;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

/// Debian's containerd has a libcni that knows versions up to 1.0.0.
const CONFLIST: &str = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [
    {"type": "sluice-cni", "bridge": "br0", "ipam": {"ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]}}
]}"#;
/// The gateway's address.
const GATEWAY: &str = "10.77.0.1";
/// Containers at once.
const MANY: usize = 50;

fn node(test: &str) -> Option<Node> {
    let mut node = Node::new(test)?;
    node.configure(CONFLIST);
    node.start_switch();
    node.start_containerd();
    node.load_image(&["/usr/sbin/dnsmasq"]);
    Some(node)
}

fn ping(from: &Container<'_>, to: &str) {
    from.say(&["ping", "-c", "2", "-i", "0.2", "-W", "5", to]);
}

#[test]
fn two_containers_reach_each_other_by_ping_tcp_and_name_and_the_outside_sees_the_nodes_address() {
    let Some(node) = node("containers reach each other") else { return };
    let before = node.traces();
    let a = node.start_container("a", &["sleep", "1000"]);
    let b = node.start_container("b", &["sleep", "1000"]);
    let (of_a, of_b) = (a.address(), b.address());
    assert_ne!(of_a, of_b);
    ping(&a, &of_b);
    ping(&b, &of_a);
    ping(&a, GATEWAY);
    ping(&a, "fd77::1");

    b.say(&["sh", "-c", "echo hello from b > /tmp/index.html; httpd -p 80 -h /tmp"]);
    assert_eq!(a.say(&["wget", "-q", "-O", "-", &format!("http://{of_b}/")]), "hello from b\n");

    // A name server in the one container, asked by the other: each finds the other's address.
    let records = [format!("--address=/a.test/{of_a}"), format!("--address=/b.test/{of_b}")];
    let server =
        ["dnsmasq", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=/tmp/pid", &records[0], &records[1]];
    a.say(&server);
    for (name, address) in [("a.test", &of_a), ("b.test", &of_b)] {
        let answer = b.say(&["nslookup", "-type=a", name, &of_a]);
        assert!(answer.contains(address.as_str()), "{answer}");
    }

    let listener = node.outside.run(|| TcpListener::bind((ip(OUTSIDE), 80))).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // To the end of the request: closed with something unread, the connection would be reset.
        let (mut request, mut byte) = (Vec::new(), [0]);
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\noutside\n").unwrap();
        from.ip()
    });
    assert_eq!(a.say(&["wget", "-q", "-O", "-", &format!("http://{OUTSIDE}/")]), "outside\n");
    assert_eq!(server.join().unwrap(), ip(NODE));

    a.stop();
    b.stop();
    assert_eq!(node.traces(), before);
}

#[test]
fn fifty_containers_started_at_once_have_addresses_of_their_own_and_leave_nothing() {
    let Some(node) = node("fifty containers") else { return };
    let before = node.traces();
    let started: Vec<_> = (0..MANY)
        .map(|n| {
            let script = format!("ip -4 -o addr show eth0 | awk '{{print $4}}'; ping -q -c 1 -W 20 {GATEWAY} >&2");
            let mut command = node.container(&format!("c{n}"), &["sh", "-c", &script]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut addresses: Vec<_> = started
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), MANY, "{addresses:?}");
    assert_eq!(node.traces(), before);
}

#[test]
fn containers_outlive_a_killed_switch_and_a_killed_containerd() {
    let Some(mut node) = node("containers outlive kills") else { return };
    let before = node.traces();
    // What runs in containers is not to end with the containers' descriptions here: their node is changed meanwhile.
    let (of_a, of_b) = {
        let a = node.start_container("a", &["sleep", "1000"]);
        let b = node.start_container("b", &["sleep", "1000"]);
        let addresses = (a.address(), b.address());
        ping(&a, &addresses.1);
        a.leave();
        b.leave();
        addresses
    };
    node.kill_switch();
    let inside = ["ctr", "task", "exec", "--exec-id", "look", "a", "ip", "-o", "addr", "show", "eth0"];
    let looked = node.say(&inside);
    assert!(looked.contains(&of_a), "{looked}");
    node.start_switch();
    wait_until("traffic goes on", || ping_once(&node, "a", &of_b));
    wait_until("traffic goes on", || ping_once(&node, "b", &of_a));

    node.kill_containerd();
    node.start_containerd();
    wait_until("traffic goes on", || ping_once(&node, "a", &of_b));
    node.say(&["ctr", "task", "rm", "--force", "a"]);
    node.say(&["ctr", "task", "rm", "--force", "b"]);
    node.say(&["ctr", "containers", "rm", "a", "b"]);
    // Who started the containers died with containerd, and nobody says DEL: garbage collection is what is left.
    let valid = r#"{"cniVersion":"1.1.0","name":"n","type":"sluice-cni","bridge":"br0","cni.dev/valid-attachments":[],
        "ipam":{"ranges":[[{"subnet":"10.77.0.0/24"}],[{"subnet":"fd77::/64"}]]}}"#;
    node.plugin("GC", valid);
    node.say(&["sh", "-c", "rm -rf /var/lib/cni/results"]);
    assert_eq!(node.traces(), before);
}

fn ping_once(node: &Node, container: &str, to: &str) -> bool {
    let exec = format!("p{}", crate::node::unique());
    node.run(&["ctr", "task", "exec", "--exec-id", &exec, container, "ping", "-c", "1", "-W", "1", to]).status.success()
}
