//! Containers as nodes of a lab: started by containerd with the configuration that `sluice lab cni` prints, or attached by hand.

use crate::node::{Container, Node, built};
use std::fs;
use std::process::{Child, Stdio};

const OFFICE: &str = "\
lab: office
vlans:
  blue: {id: 10, subnet: 10.0.10.0/24, gateway: r1}
  green: {id: 20, subnet: 10.0.20.0/24, gateway: r1}
switches: {s1: {}, s2: {rules: [{name: no-web, match: \"tcp,tcp_dst=80\", action: drop}]}}
hosts: {h1: {ip: 10.0.10.3}, web: {ip: 10.0.20.80}}
routers: {r1: {}}
links:
  - {ends: [h1, s1], access: blue}
  - {ends: [web, s2], access: green}
  - {ends: [r1, s1], trunk: [blue, green]}
  - {ends: [s1, s2], name: wan, trunk: [blue, green], delay: 5ms}
";

/// A node with containerd and the lab; what it looked like before.
fn node(test: &str) -> Option<(Node, String)> {
    let mut node = Node::new(test)?;
    node.start_containerd();
    node.load_image(&[]);
    fs::write(node.path("run/office.yml"), OFFICE).unwrap();
    // The folder of labs stays when they go.
    sluice(&node, "lab up /run/office.yml");
    sluice(&node, "lab down");
    let before = node.traces();
    sluice(&node, "lab up /run/office.yml");
    Some((node, before))
}

fn sluice(node: &Node, line: &str) -> String {
    node.say(&words(line))
}

fn words(line: &str) -> Vec<&str> {
    // Where the program is does not change.
    let program: &'static str = Box::leak(built("sluice").into_os_string().into_string().unwrap().into_boxed_str());
    std::iter::once(program).chain(line.split(' ')).collect()
}

fn fails(node: &Node, line: &str) -> String {
    let output = node.run(&words(line));
    assert!(!output.status.success(), "{line}");
    String::from_utf8(output.stderr).unwrap()
}

fn ping(from: &Container<'_>, to: &str) {
    from.say(&["ping", "-c", "2", "-i", "0.2", "-W", "5", to]);
}

/// A capture that has begun.
fn capture(node: &Node, line: &str) -> Child {
    let mut child = node.command(&words(line)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut err = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut err, &mut said).unwrap();
    assert!(said.starts_with("capturing "), "{said}");
    child
}

#[test]
fn what_containerd_starts_is_a_node_of_the_lab_and_leaves_nothing() {
    let Some((node, before)) = node("containers in a lab") else { return };
    let conflist = sluice(&node, "lab cni s1 --vlan blue");
    node.configure(&conflist);
    let a = node.start_container("a", &["sleep", "1000"]);
    let b = node.start_container("b", &["sleep", "1000"]);
    let addresses = [a.address(), b.address()];
    // The gateway has .1, and h1 has .3.
    assert_eq!(addresses, ["10.0.10.2", "10.0.10.4"]);
    ping(&a, &addresses[1]);
    ping(&a, "10.0.10.3");
    // Behind the router, in the other VLAN, over the slow link.
    ping(&a, "10.0.20.80");
    sluice(&node, "lab exec h1 -- busybox ping -c 1 -W 5 10.0.10.2");
    sluice(&node, "lab exec web -- busybox ping -c 1 -W 5 10.0.10.4");

    // Each verb knows them as hosts.
    let inspected = sluice(&node, "lab inspect");
    let row = inspected.lines().find(|line| line.starts_with("default-a ")).unwrap_or_else(|| panic!("{inspected}"));
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!((row[1], row[3], row[5]), ("eth0", "10.0.10.2/24", "blue"), "{inspected}");
    assert!(row[2].starts_with("s1:"), "{inspected}");
    let pinged = sluice(&node, "lab ping");
    assert!(pinged.contains("default-b") && pinged.ends_with("12/12 pairs reachable, 0 packets lost\n"), "{pinged}");
    let graph = sluice(&node, "lab graph");
    assert!(graph.contains("s1 --blue-- default-a"), "{graph}");
    let traced = node.run(&words("trace default-a web:80 tcp"));
    let traced = String::from_utf8(traced.stdout).unwrap();
    assert!(traced.starts_with("DROPPED  default-a -> web: rule_drop at s2 by file:/run/office.yml:5"), "{traced}");
    let captured = capture(&node, "lab capture default-a icmp -c 2");
    ping(&a, "10.0.10.3");
    let captured = String::from_utf8(captured.wait_with_output().unwrap().stdout).unwrap();
    assert!(captured.contains("default-a>s1") && captured.contains("s1>default-a"), "{captured}");
    assert!(sluice(&node, "lab exec default-b -- ip -o addr show eth0").contains("10.0.10.4/24"));
    assert!(!sluice(&node, "lab save").contains("default-a"), "a file has what comes up");

    // DEL leaves nothing, and an address is free again in the lab's own store.
    a.stop();
    let inspected = sluice(&node, "lab inspect");
    assert!(!inspected.contains("default-a") && inspected.contains("default-b"), "{inspected}");
    assert!(!sluice(&node, "ports").contains("10.0.10.2"));

    // A lab that goes takes the link with it, and DEL finds nothing to do.
    sluice(&node, "lab down");
    b.stop();
    assert!(node.run(&["ls", "/run/sluice/labs/office"]).status.code() == Some(2), "nothing is left of the lab");
    let refused = node.container("c", &["true"]).output().unwrap();
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains("the lab office does not run"), "{refused}");
    // The same configuration is that of the lab that comes up again. `ctr` leaves the task of the refused one behind.
    sluice(&node, "lab up /run/office.yml");
    let d = node.start_container("d", &["sleep", "1000"]);
    ping(&d, "10.0.10.3");
    d.stop();
    sluice(&node, "lab down");
    assert_eq!(node.traces(), before);
}

#[test]
fn a_namespace_is_attached_and_detached_by_hand() {
    let Some((node, before)) = node("lab attach") else { return };
    for name in ["x", "y"] {
        node.say(&["ip", "netns", "add", name]);
    }
    let said = sluice(&node, "lab attach s1 --name x --netns /run/netns/x --vlan blue -o json");
    assert!(said.contains("10.0.10.2/24"), "{said}");
    sluice(&node, "lab attach s2 --name y --netns /run/netns/y --vlan green --interface lab0 --ip 10.0.20.7");
    node.say(&["ip", "netns", "exec", "x", "busybox", "ping", "-c", "1", "-W", "5", "10.0.20.7"]);
    let pinged = sluice(&node, "lab ping x y");
    assert!(pinged.contains("2/2 pairs reachable"), "{pinged}");
    sluice(&node, "lab link down x-s1");
    assert!(fails(&node, "lab ping x h1").is_empty(), "no answer is no failure of the command");
    sluice(&node, "lab link up x-s1");
    sluice(&node, "lab ping x h1");
    for (line, why) in [
        ("lab attach s1 --name x --netns /run/netns/y", "has a node or a link named x already"),
        ("lab attach s9 --name z --netns /run/netns/y", "one of: s1, s2"),
        ("lab attach s1 --name z --netns /run/netns/y --vlan red", "one of: blue, green"),
        ("lab attach s1 --name z --netns /run/netns/nowhere --vlan blue", "there is no network namespace at"),
        ("lab attach s1 --name z --pid 1 --vlan blue", "the machine's network"),
        ("lab attach s1 --name z --netns /run/netns/y --vlan blue --ip 10.0.10.3", "10.0.10.3"),
        ("lab attach s1 --name Z! --netns /run/netns/y --vlan blue", "cannot be a node's name"),
        ("lab detach z", "one of: x, y"),
        ("lab cni s9", "the lab office has no switch named s9"),
        ("lab link set x-s1 delay=1ms", "is a container's"),
    ] {
        let said = fails(&node, line);
        assert!(said.contains(why), "{line}: {said}");
    }
    sluice(&node, "lab detach x");
    // One that has ended without a word to the lab is in nobody's way.
    node.say(&["ip", "netns", "del", "y"]);
    let pinged = sluice(&node, "lab ping");
    assert!(pinged.ends_with("2/2 pairs reachable, 0 packets lost\n"), "{pinged}");
    sluice(&node, "lab exec all -- true");
    sluice(&node, "lab detach y");
    assert!(!sluice(&node, "lab inspect").contains("lab0"));
    assert_eq!(node.say(&["ip", "-n", "x", "-o", "link"]).lines().count(), 1, "only lo is left");
    sluice(&node, "lab down");
    node.say(&["ip", "netns", "del", "x"]);
    assert_eq!(node.traces(), before);
}
