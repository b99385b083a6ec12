//! Containers' interfaces on a real kernel, as `ip` shows them. Each test has a host of its own: a network namespace
//! without name or process, which goes with the test.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use ipnet::IpNet;
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;
use sluice_cni::link::{LinkKind, LinkPlan, check, create, delete, interface};
use sluice_cni::spec::Route;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

/// A route on which nothing more is said.
fn route(dst: &str, gw: Option<&str>) -> Route {
    Route { dst: net(dst), gw: gw.map(addr), mtu: None, advmss: None, priority: None, table: None, scope: None }
}

/// A container's namespace, reached by a path as long as this is there.
struct Container {
    file: File,
}

impl Container {
    fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace");
            File::open("/proc/thread-self/ns/net").expect("open it")
        });
        Self { file: made.join().expect("make a container") }
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).expect("enter the container");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn ip(&self, arguments: &str) -> Value {
        self.run(|| ip(arguments))
    }

    /// The one interface of that name.
    fn link(&self, name: &str) -> Option<Value> {
        self.run(|| link(name))
    }
}

/// Runs `ip` in the calling thread's namespace and returns what it prints.
fn ip(arguments: &str) -> Value {
    let out = Command::new("ip").args(["-j", "-d"]).args(arguments.split_whitespace()).output().expect("run ip");
    assert!(out.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap_or(Value::Null)
}

fn link(name: &str) -> Option<Value> {
    let links = ip("link show");
    links.as_array().into_iter().flatten().find(|link| link["ifname"] == name).cloned()
}

/// Does `test` in a host of its own, if this machine lets it.
fn on_a_host(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        // Not eprintln!, whose output the test runner keeps to itself when a test passes.
        _ = writeln!(std::io::stderr(), "skipped: needs root for network namespaces");
        return;
    }
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("make a host");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn plan(container: &Container) -> LinkPlan {
    LinkPlan {
        netns: container.path(),
        ifname: "eth0".to_owned(),
        host_name: "sl0123456789ab".to_owned(),
        alias: "sluice:n:c:eth0".to_owned(),
        kind: LinkKind::Veth,
        mac: [0x02, 1, 2, 3, 4, 5],
        mtu: 1450,
        addresses: vec![net("10.77.0.2/24"), net("fd00:77::2/64")],
        routes: vec![route("0.0.0.0/0", Some("10.77.0.1")), route("::/0", Some("fd00:77::1"))],
        sysctls: Vec::new(),
        dad: false,
        tx_checksum: true,
        up: true,
    }
}

/// All addresses of an interface as `ip` writes them.
fn addresses(container: &Container) -> Vec<String> {
    let shown = container.ip("addr show dev eth0");
    let list = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let text = |one: &Value| format!("{}/{}", one["local"].as_str().unwrap_or_default(), one["prefixlen"]);
    list.iter().filter(|one| one["scope"] != "link").map(text).collect()
}

/// `DST GW` of each route of the main table of that family, in order.
fn routes(container: &Container, family: &str) -> Vec<String> {
    let shown = container.ip(&format!("-{family} route show dev eth0"));
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let text = |one: &Value| format!("{} {}", word(&one["dst"]), word(&one["gateway"]));
    let mut all: Vec<String> = shown.as_array().into_iter().flatten().map(text).collect();
    all.retain(|route| !route.starts_with("fe80::/64"));
    all.sort();
    all
}

#[test]
fn a_veth_pair_has_names_address_mtu_alias_addresses_and_routes_as_planned() {
    on_a_host(|| {
        let container = Container::new();
        let plan = plan(&container);
        let made = create(&plan).expect("create");
        let inside = container.link("eth0").expect("eth0");
        let outside = link("sl0123456789ab").expect("the host's end");
        assert_eq!(inside["address"], "02:01:02:03:04:05");
        assert_eq!((&inside["mtu"], &outside["mtu"]), (&1450.into(), &1450.into()));
        assert_eq!(outside["ifalias"], "sluice:n:c:eth0");
        assert_eq!(outside["linkinfo"]["info_kind"], "veth");
        assert!(inside["flags"].to_string().contains("\"UP\""), "{inside}");
        assert!(container.link("lo").expect("lo")["flags"].to_string().contains("\"UP\""));
        let host = made.host.expect("a host's end");
        assert_eq!((host.name.as_str(), host.mtu), ("sl0123456789ab", 1450));
        assert_eq!(outside["address"], host.mac.map(|b| format!("{b:02x}")).join(":").as_str());
        assert_eq!((made.container.name.as_str(), made.container.mac), ("eth0", plan.mac));
        assert_eq!(interface(&plan.netns, "eth0").expect("look"), Some(made.container));
        assert_eq!(addresses(&container), ["10.77.0.2/24", "fd00:77::2/64"]);
        assert_eq!(routes(&container, "4"), ["10.77.0.0/24 -", "default 10.77.0.1"]);
        assert_eq!(routes(&container, "6"), ["default fd00:77::1", "fd00:77::/64 -"]);
        assert_eq!(check(&plan).expect("check"), Vec::<String>::new());
    });
}

#[test]
fn the_hosts_end_stays_down_and_has_no_address_when_it_is_set_up() {
    on_a_host(|| {
        let container = Container::new();
        create(&plan(&container)).expect("create");
        let flags = link("sl0123456789ab").expect("the host's end")["flags"].to_string();
        assert!(!flags.contains("\"UP\""), "{flags}");
        ip("link set sl0123456789ab up");
        let shown = ip("addr show dev sl0123456789ab");
        assert_eq!(shown[0]["addr_info"].as_array().map(Vec::len), Some(0), "{shown}");
        // The container's addresses are usable as soon as there is a carrier, the link-local one too.
        let shown = container.ip("addr show dev eth0").to_string();
        assert!(!shown.contains("tentative"), "{shown}");
    });
}

#[test]
fn an_interface_is_deleted_once_and_then_is_not_there() {
    on_a_host(|| {
        let container = Container::new();
        let plan = plan(&container);
        create(&plan).expect("create");
        let delete = || delete(&plan.host_name, &plan.alias, None, "eth0").expect("delete");
        assert!(delete());
        assert!(link(&plan.host_name).is_none() && container.link("eth0").is_none());
        assert!(!delete());
        create(&plan).expect("create again");
    });
}
