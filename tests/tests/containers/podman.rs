//! Containers that podman runs, with its CNI backend: addresses, names of host ports, and their end.

use crate::node::{IMAGE, NODE, Node};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CONFLIST: &str = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [
    {"type": "sluice-cni", "bridge": "br0", "capabilities": {"portMappings": true, "ips": true, "mac": true},
     "ipam": {"ranges": [[{"subnet": "10.77.0.0/24"}]]}}
]}"#;
const SETTINGS: &str = "\
[network]
network_backend = \"cni\"
network_config_dir = \"/etc/cni/net.d\"
cni_plugin_dirs = [\"/opt/cni/bin\"]
default_network = \"n\"
[engine]
cgroup_manager = \"cgroupfs\"
events_logger = \"none\"
runtime = \"runc\"
";
const POLICY: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

/// A `podman` command with all its state in the node.
fn podman<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let program =
        ["podman", "--root", "/var/lib/containers/root", "--runroot", "/run/podman", "--storage-driver", "vfs"];
    [&program[..], words].concat()
}

#[test]
fn podman_publishes_a_port_gives_a_fixed_address_and_leaves_nothing() {
    let Some(node) = Node::new("podman") else { return };
    if !std::path::Path::new("/usr/bin/podman").exists() {
        use std::io::Write;
        _ = writeln!(std::io::stderr(), "skipped: podman: needs Debian's podman");
        return;
    }
    node.configure(CONFLIST);
    fs::write(node.path("etc/containers/containers.conf"), SETTINGS).unwrap();
    fs::write(node.path("etc/containers/policy.json"), POLICY).unwrap();
    node.start_switch();
    let archive = node.path("image.tar");
    sluice_tests::image::write(&archive, IMAGE, &[]).unwrap();
    node.say(&podman(&["load", "-i", archive.to_str().unwrap()]));
    let before = node.traces();

    let group = node.cgroup("web");
    let serve = "echo served > /tmp/index.html; httpd -f -p 80 -h /tmp";
    let options =
        ["--name", "web", "--ip", "10.77.0.77", "-p", "8080:80", "--pull", "never", "--cgroup-parent", &group];
    node.say(&podman(&[&["run", "-d"], &options[..], &[IMAGE, "sh", "-c", serve]].concat()));
    for host in [NODE, "127.0.0.1", "10.77.0.77:80"] {
        let url = if host.contains(':') { format!("http://{host}/") } else { format!("http://{host}:8080/") };
        assert_eq!(node.say(&["busybox", "wget", "-q", "-O", "-", &url]), "served\n", "{url}");
    }
    let published = SocketAddr::new(crate::node::ip(NODE), 8080);
    let connect = || TcpStream::connect_timeout(&published, Duration::from_secs(5));
    node.outside.run(connect).unwrap_or_else(|e| panic!("{published} from outside: {e}"));
    // The container reaches itself by the port that it has published.
    let own = node.say(&podman(&["exec", "web", "wget", "-q", "-O", "-", &format!("http://{NODE}:8080/")]));
    assert_eq!(own, "served\n");

    node.say(&podman(&["rm", "-f", "-t", "0", "web"]));
    assert!(node.outside.run(connect).is_err(), "the port is published no more");
    assert_eq!(node.traces(), before);
}
