//! Ports of the host that lead to containers.

use crate::machine::Machine;

/// Asks for the answer of a server at this address and port, from where the command runs.
fn ask(address: &str, port: u16) -> String {
    format!("busybox nc -w 5 {address} {port} </dev/null")
}

#[test]
fn published_ports_lead_to_containers_and_end_with_them() {
    let Some(machine) = Machine::new("published_ports_lead_to_containers_and_end_with_them") else { return };
    machine.ok("docker network create -d sluice --subnet 10.9.0.0/24 net1");
    let server = "box nc -ll -p 80 -e echo answer";
    machine.ok(&format!("docker run -d --name web --network net1 -p 8080:80 -p 127.0.0.1:8081:80 {server}"));
    machine.sleeper("other", "--network net1");
    assert_eq!(machine.comes_to("docker exec other nc -w 5 web 80 </dev/null"), "answer\n");
    assert_eq!(machine.comes_to(&ask("127.0.0.1", 8080)), "answer\n");
    assert_eq!(machine.ok(&ask("192.0.2.1", 8080)), "answer\n");
    assert_eq!(machine.ok(&ask("127.0.0.1", 8081)), "answer\n");
    assert_eq!(machine.outside(&ask("192.0.2.1", 8080)), "answer\n");
    assert_eq!(machine.ok("docker exec other nc -w 5 192.0.2.1 8080 </dev/null"), "answer\n");
    assert_eq!(machine.ok("docker exec web nc -w 5 192.0.2.1 8080 </dev/null"), "answer\n", "to itself");
    machine.fails(&format!("nsenter --net --target $(cat /run/outside) {}", ask("192.0.2.1", 8081)));
    let said = machine.fails(&format!("docker run --name web2 --network net1 -p 8080:80 {server}"));
    assert!(said.contains("8080"), "{said}");
    machine.ok("docker rm -f web2 web");
    machine.fails(&ask("192.0.2.1", 8080));
    machine.ok(&format!("docker run -d --name web --network net1 -p 8080:80 {server}"));
    assert_eq!(machine.comes_to(&ask("192.0.2.1", 8080)), "answer\n");
    machine.ok("docker rm -f web other");
    machine.ok("docker network rm net1");
    machine.is_clean();
}

#[test]
fn ports_that_were_left_to_the_driver_are_free_and_told() {
    let Some(machine) = Machine::new("ports_that_were_left_to_the_driver_are_free_and_told") else { return };
    machine.ok("docker network create -d sluice --subnet 10.9.0.0/24 net1");
    let server = "box nc -ll -p 80 -e echo answer";
    // A process of the host has the first port that would be chosen.
    machine.ok("(busybox nc -ll -p 49153 -e echo host >/dev/null 2>&1 &) ; sleep 0.2");
    for name in ["c1", "c2"] {
        machine.ok(&format!("docker run -d --name {name} --network net1 -p 80 {server}"));
    }
    let status = machine.ok("sluice docker status");
    for port in [49_154, 49_155] {
        assert!(status.contains(&format!("{port}->80/tcp")), "{status}");
        assert_eq!(machine.comes_to(&ask("192.0.2.1", port)), "answer\n");
    }
    assert_eq!(machine.ok(&ask("192.0.2.1", 49_153)), "host\n");
    let said = machine.fails(&format!("docker run --name c3 --network net1 -p 49153:80 {server}"));
    assert!(said.contains("process of the host"), "{said}");
    machine.ok("docker rm -f c1 c2 c3");
    machine.ok("docker network rm net1");
    machine.is_clean();
}

#[test]
fn published_ports_follow_a_container_to_its_next_network() {
    let Some(machine) = Machine::new("published_ports_follow_a_container_to_its_next_network") else { return };
    machine.ok("docker network create -d sluice --subnet 10.9.0.0/24 net1");
    machine.ok("docker network create -d sluice --subnet 10.10.0.0/24 net2");
    machine.ok("docker run -d --name web --network net1 -p 8080:80 box nc -ll -p 80 -e echo answer");
    assert_eq!(machine.comes_to(&ask("192.0.2.1", 8080)), "answer\n");
    machine.ok("docker network connect net2 web");
    assert_eq!(machine.comes_to(&ask("192.0.2.1", 8080)), "answer\n");
    machine.ok("docker network disconnect net1 web");
    assert_eq!(machine.comes_to(&ask("192.0.2.1", 8080)), "answer\n");
    let status = machine.ok("sluice docker status");
    assert!(status.lines().any(|line| line.contains("10.10.0.2") && line.contains("8080->80/tcp")), "{status}");
    machine.ok("docker rm -f web");
    machine.ok("docker network rm net1 net2");
    machine.is_clean();
}
