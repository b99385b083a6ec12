//! Addresses by DHCP, and names.

use super::machine::Machine;
use super::*;

/// The worked example that the lab's files were designed with.
const OFFICE: &str = "\
lab: office
seed: 42
vlans:
  blue:  {id: 10, subnet: 10.0.10.0/24, gateway: r1, dhcp: true}
  green: {id: 20, subnet: 10.0.20.0/24, gateway: r1}
switches: {s1: {}, s2: {rules: [{name: no-ssh, match: \"tcp,tcp_dst=22\", action: drop}]}}
routers: {r1: {}}
hosts: {h1: {dhcp: true}, h2: {ip: 10.0.10.12}, web: {ip: 10.0.20.80, run: \"sluice lab serve 80\"}}
links:
  - {ends: [h1, s1], access: blue}
  - {ends: [h2, s2], access: blue}
  - {ends: [web, s2], access: green}
  - {ends: [r1, s1], trunk: [blue, green]}
  - {ends: [s1, s2], name: wan, trunk: [blue, green], delay: 20ms, jitter: 3ms, loss: 0.5%, rate: 50mbit, back: {delay: 60ms}}
tests:
  - {name: same-vlan, ping: [h1, h2], want: ok, rtt: 74..90ms}
  - {name: routed, tcp: [h1, \"web:80\"], want: ok}
  - {name: ssh-blocked, tcp: [h1, \"web:22\"], want: drop, by: no-ssh}
";

/// One switch, a host with an address by DHCP and one without.
const SMALL: &str = "\
lab: small
vlans: {blue: {subnet: 10.0.10.0/24, subnet6: 'fd00:10::/64', gateway: s1, dhcp: true}}
hosts: {h1: {dhcp: true}, h2: {}}
switches: {s1: {}}
links: [{ends: [h1, s1], access: blue}, {ends: [h2, s1], access: blue}]
";

/// What the supervisor has logged.
fn log(user: &User, lab: &str) -> String {
    fs::read_to_string(user.runtime().join("labs").join(lab).join("supervisor.log")).unwrap()
}

/// Waits until something is so.
#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_office_comes_up_with_addresses_and_names_and_passes_its_tests() {
    if !is_root("the_office_comes_up_with_addresses_and_names_and_passes_its_tests") {
        return;
    }
    let user = User::new();
    user.up(OFFICE, "");
    let address = user.ok("lab exec h1 -- ip -o -4 address show dev eth0");
    assert!(address.contains("inet 10.0.10.2/24"), "{address}");
    assert!(user.ok("lab exec h1 -- ip route").starts_with("default via 10.0.10.1 dev eth0"));
    assert!(log(&user, "office").contains("leased vlan=blue mac=02:00:29:00:00:01 host=\"h1\" address=10.0.10.2"));
    let leases = user.ok("lab leases");
    assert!(leases.starts_with("VLAN  ADDRESS    MAC                NODE") && leases.lines().count() == 2, "{leases}");
    assert!(leases.contains("blue  10.0.10.2  02:00:29:00:00:01  h1"), "{leases}");
    let json: Value = serde_json::from_str(&user.ok("lab leases office -o json")).unwrap();
    let lease = &json["leases"][0];
    assert_eq!((&lease["vlan"], &lease["node"]), (&"blue".into(), &"h1".into()), "{json}");
    assert!((3000..=3600).contains(&lease["left_s"].as_u64().unwrap()), "{json}");
    let table = user.ok("lab inspect");
    assert!(table.contains("blue   10  10.0.10.0/24  r1       -    -    10.0.10.254\n"), "{table}");

    assert_eq!(user.ok("lab exec h1 -- getent hosts web"), "10.0.20.80      web web.office\n");
    assert_eq!(user.ok("lab exec web -- getent hosts 10.0.10.12"), "10.0.10.12      h2 h2.office\n");
    assert_eq!(user.ok("lab exec h1 -- stat -c %a /etc/hosts /etc/resolv.conf"), "644\n644\n");
    for host in ["h1", "web"] {
        let resolver = user.ok(&format!("lab exec {host} -- cat /etc/resolv.conf"));
        assert_eq!(resolver, "search office\nnameserver 10.0.10.254\n", "{host}");
        // By DNS, from the server's VLAN and from another one over the slow line.
        let said = user.ok(&format!("lab exec {host} -- busybox nslookup -type=a h2.office 10.0.10.254"));
        assert!(said.contains("Address: 10.0.10.12\n"), "{said}");
        let said = user.run(&format!("lab exec {host} -- busybox nslookup -type=a h3.office 10.0.10.254"));
        assert!(said.code == 1 && said.out.contains("NXDOMAIN"), "{said:?}");
    }
    let said = user.ok("lab exec h1 -- busybox nslookup 10.0.20.80 10.0.10.254");
    assert!(said.contains("80.20.0.10.in-addr.arpa\tname = web.office"), "{said}");

    // The line loses a packet now and then, and a machine with other work is late now and then.
    let passes = || user.run("lab test").code == 0;
    assert!((0..3).any(|_| passes()), "{:?}", user.run("lab test"));
    let saved = user.ok("lab save office");
    assert!(saved.contains("gateway: r1, dhcp: true}") && saved.contains("10.0.10.2/24\"], dhcp: true}"), "{saved}");
    assert!(user.ok("lab down").starts_with("office: removed 4 namespaces"));
}

#[test]
fn every_kind_of_joint_and_no_privilege_will_do() {
    const NAME: &str = "every_kind_of_joint_and_no_privilege_will_do";
    if !is_root(NAME) {
        return;
    }
    let user = User::new();
    for attach in ["tap", "veth"] {
        user.up(SMALL, &format!("--attach {attach}"));
        user.reaches("", 4);
        user.ok("lab down");
    }
    let user = User::without_privilege();
    fs::write(user.folder.path().join("lab.yml"), SMALL).unwrap();
    let said = user.run("lab up lab.yml --attach veth");
    if said.code == 77 {
        return eprintln!("skipped: {NAME}: {}", said.err.lines().next().unwrap_or_default());
    }
    assert!(said.code == 0 && said.out.contains("rootless"), "{said:#?}");
    user.reaches("", 4);
    assert_eq!(user.ok("lab exec h2 -- getent hosts h1.small"), "fd00:10::2      h1 h1.small\n");
    assert!(user.ok("lab exec h2 -- cat /etc/resolv.conf").ends_with("nameserver 10.0.10.254\n"));
}

/// Has busybox's client ask, in a host; returns what it tells its script.
fn udhcpc(user: &User, host: &str, options: &str) -> String {
    let script = user.folder.path().join("script");
    fs::write(&script, "#!/bin/sh\n[ \"$1\" != bound ] || env | sort\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.display();
    user.ok(&format!("lab exec {host} -- busybox udhcpc -i eth0 -q -n -f -t 5 -T 2 -s {script} {options}"))
}

#[test]
fn a_client_that_is_started_by_hand_gets_the_hosts_address_or_one_of_the_rest() {
    if !is_root("a_client_that_is_started_by_hand_gets_the_hosts_address_or_one_of_the_rest") {
        return;
    }
    let user = User::new();
    user.up(SMALL, "");
    let own = udhcpc(&user, "h2", "-O mtu");
    let parts = ["dns=10.0.10.254", "domain=small", "hostname=h2", "ip=10.0.10.3", "lease=3600", "mask=24", "mtu=1500"];
    for part in parts.into_iter().chain(["router=10.0.10.1", "serverid=10.0.10.254", "subnet=255.255.255.0"]) {
        assert!(own.lines().any(|line| line == part), "{part} in {own}");
    }
    // Not a node of the lab any more: the lowest address that no node has, and the same one the next time.
    user.ok("lab exec h2 -- ip link set eth0 address 02:99:00:00:00:01");
    for options in ["", "-r 10.0.10.2", ""] {
        let other = udhcpc(&user, "h2", options);
        assert!(other.contains("\nip=10.0.10.4\n") && !other.contains("hostname="), "{options}: {other}");
    }
    user.ok("lab exec h2 -- ip link set eth0 address 02:99:00:00:00:02");
    let another = udhcpc(&user, "h2", "-r 10.0.10.77");
    assert!(another.contains("\nip=10.0.10.77\n"), "{another}");
}

#[test]
fn many_hosts_that_ask_at_the_same_time_all_get_their_addresses() {
    if !is_root("many_hosts_that_ask_at_the_same_time_all_get_their_addresses") {
        return;
    }
    let user = User::new();
    let mut file =
        SMALL.replace("hosts: {h1: {dhcp: true}, h2: {}}", "hosts: {HOSTS}").replace("links: [", "links: [LINKS");
    file = file.replace("{ends: [h1, s1], access: blue}, {ends: [h2, s1], access: blue}", "");
    let names: Vec<_> = (1..=120).map(|number| format!("h{number}")).collect();
    let hosts: Vec<_> = names.iter().map(|name| format!("{name}: {{dhcp: true}}")).collect();
    let links: Vec<_> = names.iter().map(|name| format!("{{ends: [{name}, s1], access: blue}}")).collect();
    user.up(&file.replace("HOSTS", &hosts.join(", ")).replace("LINKS", &links.join(", ")), "");
    let addresses = user.ok("lab exec all -- ip -o -4 address show dev eth0");
    assert_eq!(addresses.matches(" inet 10.0.10.").count(), 120, "{addresses}");
}

#[test]
fn a_lease_is_renewed_and_an_address_goes_with_it_when_it_is_not() {
    if !is_root("a_lease_is_renewed_and_an_address_goes_with_it_when_it_is_not") {
        return;
    }
    let user = User::new();
    user.up(&SMALL.replace("dhcp: true}}", "dhcp: {lease: 2s}}}"), "");
    let leases = || log(&user, "small").matches("leased vlan=blue").count();
    let has_address = || user.ok("lab exec h1 -- ip -4 address show dev eth0").contains("inet 10.0.10.2/24");
    wait_for("it is renewed", || leases() >= 4);
    assert!(has_address());
    user.ok("lab link down h1-s1");
    wait_for("the address is taken away", || !has_address());
    assert!(log(&user, "small").contains("its lease is over host=\"h1\" address=10.0.10.2/24"));
    user.ok("lab link up h1-s1");
    wait_for("the address is back", has_address);
    user.reaches("", 4);
}

#[test]
fn a_host_without_an_answer_takes_the_lab_back_and_says_who_and_where() {
    if !is_root("a_host_without_an_answer_takes_the_lab_back_and_says_who_and_where") {
        return;
    }
    let user = User::new();
    let rule = "{s1: {rules: [{name: no-dhcp, match: 'udp,tp_dst=67', action: drop}]}}";
    fs::write(user.folder.path().join("lab.yml"), SMALL.replace("{s1: {}}", rule)).unwrap();
    let parts = ["h1 got no address by DHCP in 15 s", "in the VLAN blue, whose server is at s1", "`dhcp: true` of h1"];
    user.fails("lab up lab.yml", 1, &parts);
    assert!(!user.runtime().join("labs/small").exists());
    // A link that is down on purpose is not waited for.
    user.up(&SMALL.replace("[h1, s1], access: blue", "[h1, s1], access: blue, down: true"), "");
    user.ok("lab link up h1-s1");
    wait_for("the address is there", || user.ok("lab exec h1 -- ip address").contains("inet 10.0.10.2/24"));
}

#[test]
fn names_of_elsewhere_are_asked_of_the_machines_servers_by_an_uplink() {
    const NAME: &str = "names_of_elsewhere_are_asked_of_the_machines_servers_by_an_uplink";
    if !is_root(NAME) {
        return;
    }
    let (machine, neighbour) = (Machine::new(), Machine::new());
    machine.join(&neighbour, 1500, &[["198.51.100.2/24", "198.51.100.1/24"]]);
    machine.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    let mut user = machine.user();
    let resolver = user.folder.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 198.51.100.1\n").unwrap();
    let bind = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolver.display());
    user.through.extend(["unshare", "--mount", "sh", "-c", &bind, "sh"].map(str::to_owned));
    let options = "--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file=";
    let server =
        format!("dnsmasq {options} --listen-address=198.51.100.1 --bind-interfaces --address=/example.org/192.0.2.55");
    let _server = neighbour.start(&server);
    let file = SMALL.replace("gateway: s1, ", "") + "uplink: {switch: s1, mode: nat, vlan: blue}\n";
    user.up(&file, "");
    let ask = |name: &str| user.run(&format!("lab exec h1 -- busybox nslookup -type=a {name} 10.0.10.254"));
    wait_for("the neighbour's server answers", || ask("www.example.org").out.contains("Address: 192.0.2.55\n"));
    assert!(ask("h2").out.contains("Address: 10.0.10.3\n"), "{:?}", ask("h2"));
    assert!(ask("h9.small").out.contains("NXDOMAIN"), "{:?}", ask("h9.small"));
}
