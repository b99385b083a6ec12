use super::{make::check_name, sysctl};

#[test]
fn a_sysctl_is_named_with_dots_or_slashes_and_the_interface_may_have_a_dot() {
    let path = |key| sysctl::path(key, "eth0.5").map(|path| path.display().to_string());
    for (key, file) in [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net/core/somaxconn", "/proc/sys/net/core/somaxconn"),
        ("net.ipv4.conf.IFNAME.rp_filter", "/proc/sys/net/ipv4/conf/eth0.5/rp_filter"),
        ("net/ipv6/conf/IFNAME/accept_ra", "/proc/sys/net/ipv6/conf/eth0.5/accept_ra"),
        ("net.ipv4.conf.eth0/5.rp_filter", "/proc/sys/net/ipv4/conf/eth0.5/rp_filter"),
        ("net/ipv4/conf/eth0.5/rp_filter", "/proc/sys/net/ipv4/conf/eth0.5/rp_filter"),
    ] {
        assert_eq!(path(key).as_deref(), Ok(file), "{key}");
    }
}

#[test]
fn a_sysctl_outside_of_the_network_is_refused() {
    for key in [
        "kernel.core_pattern",
        "vm/swappiness",
        "net",
        "net.ipv4",
        "",
        "/net/ipv4/ip_forward",
        "net/../kernel/core_pattern",
        "net.ipv4.//.kernel.x",
        "net/./ipv4/ip_forward",
        "net..ip_forward",
        "net/ipv4/ip_forward\0",
    ] {
        assert!(sysctl::path(key, "eth0").is_err(), "{key:?}");
    }
}

#[test]
fn an_interface_name_is_what_the_kernel_takes_for_one() {
    for name in ["eth0", "a", "fifteen-bytes-x", "eth0.5", "...", "ü"] {
        assert!(check_name(name).is_ok(), "{name}");
    }
    for name in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "sixteen-bytes-xx", "a\0"] {
        assert!(check_name(name).is_err(), "{name:?}");
    }
}
