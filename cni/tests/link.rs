//! Containers' interfaces on a real kernel, as `ip` shows them. Each test has a host of its own: a network namespace
//! without name or process, which goes with the test.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use ipnet::IpNet;
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;
use sluice_cni::link::{
    LinkError, LinkKind, LinkPlan, OurLink, check, create, delete, has_default_route, interface, is_netns, ours,
    same_netns, settle,
};
use sluice_cni::spec::Route;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
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

fn sysctl(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/{path}")).expect("read a sysctl").trim().to_owned()
}

/// How many interfaces the calling thread's namespace has.
fn links() -> usize {
    ip("link show").as_array().map_or(0, Vec::len)
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

#[test]
fn each_thing_that_is_changed_behind_our_back_is_told_and_not_mended() {
    type Spoil = fn(&Container);
    let cases: [(&str, Spoil); 11] = [
        ("has the hardware address 02:00:00:00:00:09, not 02:01:02:03:04:05", |c| {
            c.ip("link set eth0 address 02:00:00:00:00:09");
        }),
        ("eth0 in /proc/self/fd/N has the MTU 1400, not 1450", |c| {
            c.ip("link set eth0 mtu 1400");
        }),
        ("is down, not up", |c| {
            c.ip("link set eth0 down");
        }),
        ("does not have the address fd00:77::2/64", |c| {
            c.ip("addr del fd00:77::2/64 dev eth0");
        }),
        ("does not have the address 10.77.0.2/24", |c| {
            c.ip("addr change 10.77.0.3/24 dev eth0");
            c.ip("addr del 10.77.0.2/24 dev eth0");
        }),
        ("there is no route to 0.0.0.0/0 by 10.77.0.1 on eth0", |c| {
            c.ip("route change default via 10.77.0.9");
        }),
        ("there is no route to ::/0 by fd00:77::1 on eth0", |c| {
            c.ip("-6 route del default");
        }),
        ("the sysctl net.ipv4.conf.IFNAME.rp_filter", |c| {
            c.run(|| std::fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "0").expect("set"));
        }),
        ("there is no interface eth0 in /proc/self/fd/N", |c| {
            c.ip("link set eth0 down");
            c.ip("link set eth0 name eth7");
        }),
        ("sl0123456789ab on the host has the alias `other`, not `sluice:n:c:eth0`", |_| {
            ip("link set sl0123456789ab alias other");
        }),
        ("there is no interface sl0123456789ab on the host", |_| {
            ip("link set sl0123456789ab name other");
        }),
    ];
    on_a_host(move || {
        for (told, spoil) in cases {
            let container = Container::new();
            let mut plan = plan(&container);
            plan.sysctls = vec![("net.ipv4.conf.IFNAME.rp_filter".to_owned(), "1".to_owned())];
            create(&plan).expect("create");
            assert_eq!(check(&plan).expect("check"), Vec::<String>::new(), "before: {told}");
            spoil(&container);
            let place = plan.netns.display().to_string();
            let found = check(&plan).expect("check").join("; ").replace(&place, "/proc/self/fd/N");
            assert!(found.contains(told), "{told}: {found:?}");
            let again = check(&plan).expect("check").join("; ").replace(&place, "/proc/self/fd/N");
            assert_eq!(found, again, "{told}");
            drop(container);
            // The kernel takes a namespace down when it has time.
            for name in ["sl0123456789ab", "other"] {
                let gone = Command::new("ip").args(["link", "del", name]).output().expect("run ip");
                assert!(gone.status.success() || link(name).is_none(), "{name}");
            }
        }
    });
}

#[test]
fn the_other_end_of_another_pair_is_no_other_end() {
    on_a_host(|| {
        let container = Container::new();
        let plan = plan(&container);
        create(&plan).expect("create");
        ip("link set sl0123456789ab name other");
        ip("link add sl0123456789ab mtu 1450 type veth peer name x");
        ip(&format!("link set sl0123456789ab alias {}", plan.alias));
        let found = check(&plan).expect("check").join("; ");
        assert!(found.contains("sl0123456789ab on the host is not the other end of eth0"), "{found}");
    });
}

#[test]
fn a_name_that_is_taken_in_the_container_is_an_error_and_nothing_is_made() {
    on_a_host(|| {
        let container = Container::new();
        container.ip("link add eth0 type bridge");
        for kind in [LinkKind::Veth, LinkKind::Tap] {
            let error = create(&LinkPlan { kind, ..plan(&container) }).expect_err("taken");
            assert!(matches!(&error, LinkError::Exists { ifname, .. } if ifname == "eth0"), "{error}");
            assert_eq!(links(), 1, "lo alone is on the host");
            assert_eq!(container.link("eth0").expect("eth0")["linkinfo"]["info_kind"], "bridge");
        }
    });
}

#[test]
fn a_name_that_is_taken_on_the_host_is_an_error_and_its_alias_stays() {
    on_a_host(|| {
        let container = Container::new();
        ip("link add sl0123456789ab type bridge");
        ip("link set sl0123456789ab alias mine");
        let error = create(&plan(&container)).expect_err("taken");
        assert!(matches!(&error, LinkError::HostExists { alias: Some(alias), .. } if alias == "mine"), "{error}");
        assert_eq!(link("sl0123456789ab").expect("it")["ifalias"], "mine");
        assert!(container.link("eth0").is_none());
    });
}

#[test]
fn what_fails_at_last_leaves_nothing_behind() {
    on_a_host(|| {
        let container = Container::new();
        let spoiled = |spoil: fn(&mut LinkPlan)| {
            let mut plan = plan(&container);
            spoil(&mut plan);
            plan
        };
        let plans = [
            (spoiled(|plan| plan.routes.push(route("10.9.0.0/16", Some("fd00:77::1")))), "10.9.0.0/16"),
            (spoiled(|plan| plan.routes.push(route("0.0.0.0/0", Some("10.77.0.7")))), "0.0.0.0/0"),
            (spoiled(|plan| plan.addresses.push(net("10.77.0.2/24"))), "10.77.0.2/24"),
            (spoiled(|plan| plan.sysctls = vec![("net.ipv4.conf.IFNAME.nope".to_owned(), "1".to_owned())]), "nope"),
            (spoiled(|plan| plan.sysctls = vec![("kernel.hostname".to_owned(), "x".to_owned())]), "kernel.hostname"),
            (spoiled(|plan| plan.mac[0] = 1), "unicast"),
            (spoiled(|plan| plan.mtu = 10), "MTU 10"),
            (spoiled(|plan| plan.alias = "x".repeat(256)), "alias"),
        ];
        for kind in [LinkKind::Veth, LinkKind::Tap] {
            for (plan, why) in plans.clone() {
                let error = create(&LinkPlan { kind, ..plan }).expect_err(why).to_string();
                assert!(error.contains(why), "{why}: {error}");
                assert_eq!(links(), 1, "{why}: lo alone is on the host");
                assert!(container.link("eth0").is_none(), "{why}");
            }
        }
    });
}

#[test]
fn a_pair_of_a_process_that_was_killed_before_it_wrote_the_alias_is_deleted() {
    on_a_host(|| {
        ip("link add sl0123456789ab type veth peer name x");
        assert!(delete("sl0123456789ab", "sluice:n:c:eth0", None, "eth0").expect("delete"));
        assert_eq!(links(), 1);
    });
}

#[test]
fn somebody_elses_interface_is_not_deleted() {
    on_a_host(|| {
        let container = Container::new();
        let delete = || delete("sl0123456789ab", "sluice:n:c:eth0", Some(&container.path()), "eth0");
        ip("link add sl0123456789ab type veth peer name x");
        ip("link set sl0123456789ab alias sluice:n:d:eth0");
        let error = delete().expect_err("another's");
        assert!(matches!(&error, LinkError::Foreign { .. }), "{error}");
        ip("link del sl0123456789ab");
        ip("link add sl0123456789ab type bridge");
        assert!(delete().is_err(), "no veth");
        ip("link del sl0123456789ab");
        container.ip("link add eth0 type veth peer name x");
        assert!(!delete().expect("leave it"));
        assert!(container.link("eth0").is_some());
    });
}

#[test]
fn a_tap_stays_in_the_container_and_is_deleted_from_inside() {
    on_a_host(|| {
        let container = Container::new();
        let plan = LinkPlan { kind: LinkKind::Tap, ..plan(&container) };
        let made = create(&plan).expect("create");
        assert_eq!(made.host, None);
        assert_eq!(links(), 1, "nothing is on the host");
        let tap = container.link("eth0").expect("eth0");
        assert_eq!(tap["linkinfo"]["info_data"]["type"], "tap");
        assert_eq!(tap["linkinfo"]["info_data"]["persist"], true);
        assert_eq!(tap["linkinfo"]["info_data"]["vnet_hdr"], true);
        assert_eq!((&tap["address"], &tap["mtu"]), (&"02:01:02:03:04:05".into(), &1450.into()));
        assert_eq!(addresses(&container), ["10.77.0.2/24", "fd00:77::2/64"]);
        assert_eq!(check(&plan).expect("check"), Vec::<String>::new());
        assert!(check(&LinkPlan { kind: LinkKind::Veth, ..plan.clone() }).expect("check")[0].contains("is a TAP, not"));
        let delete = |alias| delete(&plan.host_name, alias, Some(&plan.netns), "eth0").expect("delete");
        assert!(!delete("sluice:n:other:eth0"));
        assert!(delete(&plan.alias));
        assert!(container.link("eth0").is_none());
        assert!(!delete(&plan.alias));
    });
}

#[test]
fn a_path_that_is_gone_no_namespace_or_the_hosts_own_is_told_apart() {
    on_a_host(|| {
        let container = Container::new();
        let create_at = |path: &Path| create(&LinkPlan { netns: path.to_owned(), ..plan(&container) });
        let gone = Path::new("/nonexistent/netns");
        assert!(matches!(create_at(gone), Err(LinkError::NetnsGone { .. })));
        assert!(matches!(create_at(Path::new("/etc/passwd")), Err(LinkError::NotNetns { .. })));
        assert!(matches!(create_at(Path::new("/proc/self/ns/uts")), Err(LinkError::NotNetns { .. })));
        let own = Path::new("/proc/thread-self/ns/net");
        assert!(matches!(create_at(own), Err(LinkError::HostNetns { .. })));
        assert!(is_netns(own) && same_netns(own));
        assert!(is_netns(&container.path()) && !same_netns(&container.path()));
        assert!(!is_netns(gone) && !same_netns(gone));
        for gone in [gone, Path::new("/etc/passwd")] {
            let alias = "sluice:n:c:eth0";
            assert!(!delete("sl0123456789ab", alias, Some(gone), "eth0").expect("nothing to delete"));
            let plan = LinkPlan { netns: gone.to_owned(), ..plan(&container) };
            assert_eq!(check(&plan).expect("check").len(), 1);
        }
        assert_eq!(links(), 1);
    });
}

#[test]
fn a_namespace_is_known_where_it_is_mounted_and_told_from_the_file_that_stays() {
    on_a_host(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("make a mount namespace");
        let run = |command: &str| {
            let mut words = command.split_whitespace();
            let status = Command::new(words.next().unwrap_or_default()).args(words).status().expect("run it");
            assert!(status.success(), "{command}");
        };
        run("mount --make-rprivate /");
        run("mount -t tmpfs none /run");
        run("ip netns add c");
        let container = Container::new();
        let plan = LinkPlan { netns: PathBuf::from("/run/netns/c"), ..plan(&container) };
        assert!(is_netns(&plan.netns) && !same_netns(&plan.netns));
        for kind in [LinkKind::Veth, LinkKind::Tap] {
            let plan = LinkPlan { kind, ..plan.clone() };
            create(&plan).expect("create");
            assert_eq!(check(&plan).expect("check"), Vec::<String>::new());
            assert!(delete(&plan.host_name, &plan.alias, Some(&plan.netns), "eth0").expect("delete"));
        }
        create(&plan).expect("create");
        run("umount /run/netns/c");
        assert!(!is_netns(&plan.netns), "an ordinary file");
        assert!(check(&plan).expect("check")[0].contains("is no network namespace but an ordinary file"));
        delete(&plan.host_name, &plan.alias, Some(&plan.netns), "eth0").expect("delete");
        run("touch /run/netns/d");
        run("mount --bind /proc/self/ns/uts /run/netns/d");
        assert!(!is_netns(Path::new("/run/netns/d")), "another kind of namespace");
    });
}

#[test]
fn a_namespace_without_ipv6_by_default_has_it_on_an_interface_with_such_an_address() {
    on_a_host(|| {
        let container = Container::new();
        container.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("turn it off"));
        let v4 = LinkPlan { addresses: vec![net("10.77.0.2/24")], routes: Vec::new(), ..plan(&container) };
        create(&v4).expect("create with IPv4 alone");
        assert_eq!(container.run(|| sysctl("net/ipv6/conf/eth0/disable_ipv6")), "1");
        delete(&v4.host_name, &v4.alias, None, "eth0").expect("delete");
        create(&plan(&container)).expect("create");
        assert_eq!(container.run(|| sysctl("net/ipv6/conf/eth0/disable_ipv6")), "0");
        assert_eq!(addresses(&container), ["10.77.0.2/24", "fd00:77::2/64"]);
    });
}

#[test]
fn full_prefixes_reach_a_gateway_that_is_on_the_link_by_its_route_or_without() {
    on_a_host(|| {
        for with_route in [false, true] {
            let container = Container::new();
            let mut plan = plan(&container);
            plan.addresses = vec![net("10.77.0.2/32"), net("fd00:77::2/128")];
            plan.routes = vec![route("0.0.0.0/0", Some("169.254.1.1")), route("::/0", Some("fe80::1"))];
            if with_route {
                plan.routes.push(route("169.254.1.1/32", None));
                plan.routes[1].gw = Some(addr("fd00::1"));
                plan.routes.push(route("fd00::1/128", None));
            }
            create(&plan).expect("create");
            assert!(
                routes(&container, "4").contains(&"default 169.254.1.1".to_owned()),
                "{:?}",
                routes(&container, "4")
            );
            let gateway = if with_route { "default fd00::1" } else { "default fe80::1" };
            assert!(routes(&container, "6").contains(&gateway.to_owned()), "{:?}", routes(&container, "6"));
            assert_eq!(check(&plan).expect("check"), Vec::<String>::new());
            assert!(delete(&plan.host_name, &plan.alias, None, "eth0").expect("delete"));
        }
    });
}

#[test]
fn a_route_has_mtu_segment_size_metric_table_and_scope_and_check_compares_them() {
    on_a_host(|| {
        let container = Container::new();
        let full = Route {
            mtu: Some(1300),
            advmss: Some(1200),
            priority: Some(77),
            table: Some(1000),
            scope: Some(0),
            ..route("10.8.0.0/16", Some("10.77.0.5"))
        };
        let six =
            Route { mtu: Some(1280), priority: Some(5), table: Some(100), ..route("fd08::/16", Some("fd00:77::5")) };
        let plan = LinkPlan { routes: vec![full.clone(), six], ..plan(&container) };
        create(&plan).expect("create");
        let shown = container.ip("route show table 1000");
        assert_eq!((&shown[0]["dst"], &shown[0]["metric"]), (&"10.8.0.0/16".into(), &77.into()), "{shown}");
        assert_eq!(shown[0]["metrics"], serde_json::json!([{"mtu": 1300, "advmss": 1200}]), "{shown}");
        assert_eq!(check(&plan).expect("check"), Vec::<String>::new());
        let anywhere = Route { table: None, ..full.clone() };
        let moved = check(&LinkPlan { routes: vec![anywhere], ..plan.clone() }).expect("check");
        assert_eq!(moved, Vec::<String>::new(), "a route of no table in particular may have been moved");
        for other in [
            Route { mtu: Some(1301), ..full.clone() },
            Route { advmss: Some(1), ..full.clone() },
            Route { priority: Some(78), ..full.clone() },
            Route { table: Some(254), ..full.clone() },
            Route { scope: Some(253), ..full.clone() },
            Route { gw: None, ..full.clone() },
            Route { dst: net("10.8.0.0/17"), ..full },
        ] {
            let found = check(&LinkPlan { routes: vec![other.clone()], ..plan.clone() }).expect("check");
            assert_eq!(found.len(), 1, "{other:?}: {found:?}");
        }
    });
}

#[test]
fn thousands_of_routes_are_made_and_checked() {
    on_a_host(|| {
        let container = Container::new();
        let mut plan = plan(&container);
        plan.routes
            .extend((0..3000).map(|n| route(&format!("10.{}.{}.0/24", 100 + n / 256, n % 256), Some("10.77.0.1"))));
        create(&plan).expect("create");
        assert_eq!(routes(&container, "4").len(), 3002);
        assert_eq!(check(&plan).expect("check"), Vec::<String>::new());
        container.ip("route del 10.105.5.0/24");
        assert_eq!(check(&plan).expect("check").len(), 1);
    });
}

#[test]
fn an_interface_that_is_to_stay_down_has_its_addresses_and_no_routes() {
    on_a_host(|| {
        let container = Container::new();
        let plan = LinkPlan { up: false, ..plan(&container) };
        create(&plan).expect("create");
        assert!(!container.link("eth0").expect("eth0")["flags"].to_string().contains("\"UP\""));
        assert_eq!(addresses(&container), ["10.77.0.2/24", "fd00:77::2/64"]);
        assert_eq!(check(&plan).expect("check"), Vec::<String>::new());
    });
}

#[test]
fn sysctls_are_of_the_container_alone() {
    on_a_host(|| {
        let before = sysctl("net/core/somaxconn");
        for kind in [LinkKind::Veth, LinkKind::Tap] {
            let container = Container::new();
            let mut plan = LinkPlan { kind, tx_checksum: kind == LinkKind::Tap, ..plan(&container) };
            plan.sysctls = vec![
                ("net.core.somaxconn".to_owned(), "777".to_owned()),
                ("net/ipv4/conf/IFNAME/arp_filter".to_owned(), "1".to_owned()),
                ("net.ipv4.ip_local_port_range".to_owned(), "2000 3000".to_owned()),
            ];
            create(&plan).expect("create");
            assert_eq!(container.run(|| sysctl("net/core/somaxconn")), "777");
            assert_eq!(container.run(|| sysctl("net/ipv4/conf/eth0/arp_filter")), "1");
            assert_eq!(sysctl("net/core/somaxconn"), before);
            assert_eq!(check(&plan).expect("check"), Vec::<String>::new());
            delete(&plan.host_name, &plan.alias, Some(&plan.netns), "eth0").expect("delete");
        }
    });
}

#[test]
fn checksum_offload_is_off_if_asked_for_and_a_tap_that_cannot_keep_it_so_is_refused() {
    on_a_host(|| {
        let container = Container::new();
        let plan = LinkPlan { tx_checksum: false, ..plan(&container) };
        create(&plan).expect("create");
        let ethtool = |arguments: &str| {
            let run = || Command::new("ethtool").args(arguments.split_whitespace()).output().expect("run ethtool");
            String::from_utf8_lossy(&container.run(run).stdout).into_owned()
        };
        let features = ethtool("-k eth0");
        assert!(features.contains("tx-checksumming: off"), "{features}");
        assert_eq!(check(&plan).expect("check"), Vec::<String>::new());
        ethtool("-K eth0 tx on");
        assert_eq!(check(&plan).expect("check").len(), 1);
        delete(&plan.host_name, &plan.alias, None, "eth0").expect("delete");
        let error = create(&LinkPlan { kind: LinkKind::Tap, ..plan }).expect_err("a TAP");
        assert!(matches!(error, LinkError::TapChecksum { .. }), "{error}");
    });
}

#[test]
fn duplicate_address_detection_is_waited_for_and_finds_who_has_the_address() {
    on_a_host(|| {
        ip("link add br0 type bridge");
        ip("link set br0 up");
        let attach = |name: &str| {
            ip(&format!("link set {name} master br0"));
            ip(&format!("link set {name} up"));
        };
        let first = Container::new();
        let one = LinkPlan { dad: true, ..plan(&first) };
        create(&one).expect("create");
        attach(&one.host_name);
        settle(&one).expect("nobody has it");
        let shown = first.ip("addr show dev eth0").to_string();
        assert!(!shown.contains("dadfailed"), "{shown}");
        let second = Container::new();
        let two = LinkPlan {
            dad: true,
            host_name: "sl1".to_owned(),
            alias: "sluice:n:d:eth0".to_owned(),
            mac: [2, 1, 2, 3, 4, 6],
            ..plan(&second)
        };
        create(&two).expect("create");
        attach(&two.host_name);
        let error = settle(&two).expect_err("the first has it");
        assert!(matches!(&error, LinkError::Duplicate { address, .. } if *address == addr("fd00:77::2")), "{error}");
        assert!(check(&two).expect("check").join("; ").contains("somebody else's"));
    });
}

#[test]
fn a_default_route_is_seen_in_its_family_and_the_main_table_alone() {
    on_a_host(|| {
        let container = Container::new();
        let has = |v4| has_default_route(&container.path(), v4).expect("look");
        assert!(!has(true) && !has(false));
        let other_table = Route { table: Some(100), ..route("0.0.0.0/0", Some("10.77.0.1")) };
        let routes = vec![other_table, route("::/0", Some("fd00:77::1"))];
        create(&LinkPlan { routes, ..plan(&container) }).expect("create");
        assert!(!has(true) && has(false));
    });
}

#[test]
fn links_with_our_alias_are_listed() {
    on_a_host(|| {
        let container = Container::new();
        for (ifname, host_name, alias) in
            [("a", "sl2", "sluice:n:c:a"), ("b", "sl1", "sluice:n:c:b"), ("c", "sl3", "sluice:m:c:c")]
        {
            let (ifname, host_name, alias) = (ifname.to_owned(), host_name.to_owned(), alias.to_owned());
            create(&LinkPlan {
                ifname,
                host_name,
                alias,
                routes: Vec::new(),
                addresses: Vec::new(),
                ..plan(&container)
            })
            .expect("create");
        }
        ip("link add br7 type bridge");
        ip("link set br7 alias sluice:n:x");
        let link = |name: &str, alias: &str| OurLink { name: name.to_owned(), alias: alias.to_owned() };
        assert_eq!(ours("sluice:n:").expect("list"), [link("sl1", "sluice:n:c:b"), link("sl2", "sluice:n:c:a")]);
        assert_eq!(ours("sluice:").expect("list").len(), 3);
    });
}

#[test]
fn an_alias_may_have_255_bytes() {
    on_a_host(|| {
        let container = Container::new();
        for kind in [LinkKind::Veth, LinkKind::Tap] {
            let plan = LinkPlan { kind, alias: format!("sluice:{:x<248}", ""), ..plan(&container) };
            create(&plan).expect("create");
            assert_eq!(check(&plan).expect("check"), Vec::<String>::new());
            assert!(delete(&plan.host_name, &plan.alias, Some(&plan.netns), "eth0").expect("delete"), "{kind:?}");
        }
    });
}

#[test]
fn many_are_made_and_deleted_at_once() {
    const MANY: usize = 40;
    on_a_host(|| {
        let containers: Vec<Container> = (0..MANY).map(|_| Container::new()).collect();
        let plans: Vec<LinkPlan> = (0..MANY)
            .map(|n| LinkPlan { host_name: format!("sl{n}"), alias: format!("sluice:n:{n}"), ..plan(&containers[n]) })
            .collect();
        thread::scope(|scope| {
            for plan in &plans {
                scope.spawn(|| create(plan).expect("create"));
            }
        });
        assert_eq!(ours("sluice:n:").expect("list").len(), MANY);
        for plan in &plans {
            assert_eq!(check(plan).expect("check"), Vec::<String>::new());
        }
        thread::scope(|scope| {
            for plan in &plans {
                scope.spawn(|| assert!(delete(&plan.host_name, &plan.alias, None, "eth0").expect("delete")));
            }
        });
        assert_eq!(links(), 1);
    });
}
