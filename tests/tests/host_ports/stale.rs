//! Connections that are older than the port they go by, and firewalls.

use crate::machine::{CLIENT, MACHINE, Machine, Server, TCP, UDP, ask, blue, call, caller, everywhere, one, run};
use std::io::ErrorKind;

#[test]
fn datagrams_of_a_client_that_goes_on_sending_follow_the_port() {
    let Some(machine) = Machine::new("datagrams_of_a_client_that_goes_on_sending_follow_the_port") else { return };
    let containers = [11, 12].map(|n| machine.container(&blue(), n));
    let _servers: Vec<_> =
        containers.iter().zip(["one", "two"]).map(|(c, name)| Server::udp(&c.netns, 53, name)).collect();
    machine.apply(&[blue()], &[]).unwrap();
    for family in [0, 1] {
        for (caller, seen) in [
            (caller(&machine.outside, MACHINE[family], 5353), CLIENT[family]),
            (caller(&machine.netns, MACHINE[family], 5353), MACHINE[family]),
        ] {
            // Nobody is there yet, and the machine's tracking remembers that.
            assert_eq!(call(&caller), Err(ErrorKind::ConnectionRefused));
            for (container, name) in containers.iter().zip(["one", "two"]) {
                let port = one(&blue(), container, family, None, (UDP, 5353), 53);
                machine.apply(&[blue()], &[port]).unwrap();
                assert_eq!(call(&caller).as_deref(), Ok(format!("{seen} {name}").as_str()));
                assert_eq!(call(&caller).as_deref(), Ok(format!("{seen} {name}").as_str()));
            }
            machine.apply(&[blue()], &[]).unwrap();
            assert_eq!(call(&caller), Err(ErrorKind::ConnectionRefused));
        }
    }
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_and_asks_others_is_told_to_accept() {
    let Some(machine) = Machine::new("a_firewall_that_drops_what_is_forwarded_and_asks_others_is_told_to_accept")
    else {
        return;
    };
    for iptables in ["iptables-nft", "ip6tables-nft"] {
        for words in [
            "-N DOCKER-USER",
            "-A DOCKER-USER -s 203.0.113.1 -j DROP",
            "-A DOCKER-USER -j RETURN",
            "-A FORWARD -j DOCKER-USER",
            "-P FORWARD DROP",
        ] {
            let words = if iptables == "ip6tables-nft" {
                words.replace("203.0.113.1", "2001:db8:1::1")
            } else {
                words.to_owned()
            };
            run(&machine.netns, &[&[iptables], &words.split(' ').collect::<Vec<_>>()[..]].concat());
        }
    }
    let before = ["iptables-nft -S", "ip6tables-nft -S"].map(|words| machine.say(words));
    let container = machine.container(&blue(), 11);
    let _server = Server::tcp(&container.netns, 80, "web");
    let ports = everywhere(&blue(), &container, TCP, 8080, 80);
    machine.apply(&[blue()], &ports).unwrap();
    let chain = machine.say("iptables-nft -S DOCKER-USER");
    let wanted = "-N DOCKER-USER\n-A DOCKER-USER -s 203.0.113.1/32 -j DROP\n-A DOCKER-USER -i br0";
    assert!(chain.starts_with(wanted) && chain.ends_with("-j RETURN\n"), "{chain}");
    for family in [0, 1] {
        assert_eq!(ask(&machine.outside, MACHINE[family], 8080).unwrap(), format!("{} web", CLIENT[family]));
        crate::machine::ping(&container.netns, CLIENT[family]);
    }
    assert_eq!(machine.apply(&[blue()], &ports).unwrap(), [] as [String; 0]);
    // A firewall that comes later is told with the next change.
    let rules = [["-F", "DOCKER-USER"], ["-A", "DOCKER-USER"]];
    run(&machine.netns, &[&["iptables-nft"], &rules[0][..]].concat());
    machine.apply(&[blue()], &ports).unwrap();
    assert!(machine.say("iptables-nft -S DOCKER-USER").contains("-o br0"));
    for more in [&["-s", "203.0.113.1", "-j", "DROP"][..], &["-j", "RETURN"]] {
        run(&machine.netns, &[&["iptables-nft"], &rules[1][..], more].concat());
    }
    machine.apply(&[], &[]).unwrap();
    assert_eq!(["iptables-nft -S", "ip6tables-nft -S"].map(|words| machine.say(words)), before);
}
