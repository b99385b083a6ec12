//! `host-local`'s directory beside our store.

use super::*;

fn text(ips: &[IpAddr]) -> Vec<String> {
    ips.iter().map(IpAddr::to_string).collect()
}

#[test]
fn addresses_of_the_directory_are_not_given_also_when_files_come_and_go() {
    let net = Net::subnet("10.77.0.0/24");
    let dir = net.networks();
    write(&dir.join("10.77.0.2"), "old\r\neth0");
    write(&dir.join("10.77.0.4"), "older");
    write(&dir.join("last_reserved_ip.0"), "10.77.0.4");
    assert_eq!([net.one("a"), net.one("b")], ["10.77.0.3", "10.77.0.5"]);
    write(&dir.join("10.77.0.6"), "late\r\neth0");
    assert_eq!(net.one("c"), "10.77.0.7");
    std::fs::remove_dir_all(&dir).expect("removed");
    let counts = |net: &Net| net.own("").expect("a configuration").counts().expect("counts")[0].used;
    assert_eq!(counts(&net), 6);
    net.one("d");
    assert_eq!(counts(&net), 4, "what was the directory's is free again");
}

#[test]
fn a_requested_address_of_the_directory_is_refused() {
    let mut net = Net::subnet("10.77.0.0/24");
    write(&net.networks().join("10.77.0.9"), "old\r\neth0");
    net.args = "IP=10.77.0.9".into();
    assert!(net.why("a").contains("host-local"));
}

#[test]
fn del_and_check_know_containers_that_only_the_directory_knows() {
    let net = Net::subnet("10.77.0.0/24");
    let dir = net.networks();
    for (ip, owner) in [("10.77.0.2", "old\r\neth0"), ("10.77.0.3", "old\r\nnet1"), ("10.77.0.4", "older\n")] {
        write(&dir.join(ip), owner);
    }
    let own = net.own("old").expect("a configuration");
    assert!(own.check(&net.who("old", "eth0"), &["10.77.0.2".parse().expect("an address")]).is_ok());
    assert!(own.check(&net.who("old", "eth9"), &[]).is_err());
    assert_eq!(text(&net.del("old")), ["10.77.0.2"]);
    assert_eq!(text(&net.del("older")), ["10.77.0.4"], "a file without an interface is any interface's");
    assert!(dir.join("10.77.0.3").exists() && !dir.join("10.77.0.2").exists());
    assert_eq!(text(&net.del("unknown")), [""; 0]);
}

#[test]
fn gc_removes_files_of_what_is_not_valid() {
    let net = Net::subnet("10.77.0.0/24");
    let dir = net.networks();
    for (ip, owner) in [("10.77.0.2", "a\r\neth0"), ("10.77.0.3", "b\r\neth0"), ("10.77.0.4", "a")] {
        write(&dir.join(ip), owner);
    }
    let freed = net.own("").expect("a configuration").gc(&[("a", "eth0")].into(), &net.at).expect("GC");
    assert_eq!(freed.iter().map(|r| r.address.to_string()).collect::<Vec<_>>(), ["10.77.0.3"]);
}

#[test]
fn migration_takes_over_owners_and_goes_on_where_host_local_stopped() {
    let net = Net::subnet("10.77.0.0/24");
    let dir = net.networks();
    for (name, content) in [
        ("10.77.0.2", "a\r\neth0"),
        ("10.77.0.3", "old"),
        ("10.99.0.3", "outside\r\neth0"),
        ("last_reserved_ip.0", "10.77.0.9"),
        ("lock", ""),
    ] {
        write(&dir.join(name), content);
    }
    let own = net.own("").expect("a configuration");
    let dry = own.migrate(true, &net.at).expect("a dry run");
    assert!(dir.join("10.77.0.2").exists() && !net.dir.path().join("store").exists(), "nothing was touched");
    let real = own.migrate(false, &net.at).expect("a migration");
    assert!(real.directory_removed && !dir.exists());
    assert_eq!(Migration { directory_removed: true, ..dry }, real);
    assert_eq!(real.moved.len(), 3);
    assert_eq!(text(&real.outside), ["10.99.0.3"]);
    assert_eq!(net.one("b"), "10.77.0.10");
    assert!(own.check(&net.who("a", "eth0"), &["10.77.0.2".parse().expect("an address")]).is_ok());
    assert_eq!(text(&net.del("old")), ["10.77.0.3"], "whatever the interface is");
    assert_eq!(own.migrate(false, &net.at).expect("again").moved, []);
}

#[test]
fn migration_leaves_what_is_not_clear_and_finishes_one_that_was_killed() {
    let net = Net::subnet("10.77.0.0/24");
    net.one("ours");
    let dir = net.networks();
    for (name, content) in [("10.77.0.2", "theirs\r\neth0"), ("10.77.0.3", ""), ("10.77.0.4", "../x\r\neth0")] {
        write(&dir.join(name), content);
    }
    write(&dir.join("10.77.0.5"), "b\r\neth0");
    let own = net.own("").expect("a configuration");
    let first = own.migrate(false, &net.at).expect("a migration");
    assert_eq!((first.moved.len(), first.left.len(), first.directory_removed), (1, 3, false));
    assert!(first.left[0].1.contains("container ours"), "{:?}", first.left);
    write(&dir.join("10.77.0.5"), "b\r\neth0");
    let again = own.migrate(false, &net.at).expect("a migration");
    assert_eq!((text(&again.already), again.moved.len()), (vec!["10.77.0.5".to_owned()], 0));
    assert!(!dir.join("10.77.0.5").exists());
}

#[test]
fn a_full_directory_is_not_listed_again_for_every_address() {
    let mut net = Net::subnet("10.77.0.0/16");
    let dir = net.networks();
    for n in 2..2000u32 {
        write(&dir.join(std::net::Ipv4Addr::from_bits(0x0a4d_0000 + n).to_string()), "old\r\neth0");
    }
    // The directory's time of change is this machine's, so it has to be long ago here as well.
    let long_ago = SystemTime::now() - std::time::Duration::from_secs(3600);
    net.one("first");
    std::fs::File::open(&dir).and_then(|d| d.set_modified(long_ago)).expect("a time");
    net.at.now_ms = now().now_ms;
    net.one("second");
    // A file that comes without the directory's time changing shows whether the list was read: it is not in the counts.
    write(&dir.join("10.77.200.1"), "new\r\neth0");
    std::fs::File::open(&dir).and_then(|d| d.set_modified(long_ago)).expect("a time");
    net.one("third");
    let used = |net: &Net| net.own("").expect("a configuration").counts().expect("counts")[0].used;
    assert_eq!(used(&net), 1998 + 3);
    net.args = "IP=10.77.200.1".into();
    assert!(net.why("c").contains("host-local"), "the file itself is looked at before its address is given");
}
