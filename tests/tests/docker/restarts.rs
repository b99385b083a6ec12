//! Each of the three programs ends, by a signal or at once, while containers run.

use crate::machine::{Daemon, Machine};

#[test]
fn containers_outlive_every_program_that_serves_them() {
    let test = "containers_outlive_every_program_that_serves_them";
    let Some(machine) = Machine::with(test, "--bridge=none --live-restore") else { return };
    machine.ok("docker network create -d sluice --subnet 10.9.0.0/24 net1");
    machine.sleeper("c1", "--network net1");
    machine.ok("docker run -d --name c2 --network net1 -p 8080:80 box nc -ll -p 80 -e echo answer");
    let inside = machine.ok("docker exec c1 ip addr");
    for daemon in [Daemon::Sluiced, Daemon::Driver, Daemon::Dockerd] {
        for signal in ["TERM", "KILL"] {
            machine.restart(daemon, signal);
            machine.comes_to("docker exec c1 ping -c 1 -W 1 10.9.0.3");
            machine.ping("c1", "c2");
            assert_eq!(
                machine.comes_to("busybox nc -w 5 192.0.2.1 8080 </dev/null"),
                "answer\n",
                "{daemon:?} {signal}"
            );
        }
    }
    assert_eq!(machine.ok("docker exec c1 ip addr"), inside);
    machine.sleeper("c3", "--network net1");
    machine.ping("c3", "c1");
    machine.ok("docker rm -f c1 c2 c3");
    machine.ok("docker network rm net1");
    machine.is_clean();
}

#[test]
fn what_nobody_was_told_of_is_swept() {
    let Some(machine) = Machine::new("what_nobody_was_told_of_is_swept") else { return };
    machine.ok("docker network create -d sluice --subnet 10.9.0.0/24 net1");
    machine.sleeper("c1", "--network net1");
    machine.sleeper("c2", "--network net1 --restart always");
    let processes = machine.processes();
    // Docker and the driver die, and the containers with them: nobody asks for Leave.
    machine.end(Daemon::Driver, "KILL");
    machine.end(Daemon::Dockerd, "KILL");
    // Some end by themselves when others do.
    machine.run(&format!("kill -9 {processes}"));
    // Docker holds the namespaces of its containers by mounts, which a new start of a machine would take away.
    machine.ok("umount /run/docker/netns/*");
    machine.comes_to("test -z \"$(ip -o link | grep ': sl[0-9a-f]')\"");
    machine.start(Daemon::Driver);
    machine.comes_to("! sluice docker status | grep -q joined");
    machine.ok("rm -f /run/docker.pid");
    machine.start(Daemon::Dockerd);
    machine.comes_to("docker exec c2 ip addr");
    machine.sleeper("c3", "--network net1");
    machine.ping("c3", "c2");
    machine.ok("docker rm -f c1 c2 c3");
    machine.ok("docker network rm net1");
    machine.is_clean();
}

#[test]
fn what_was_removed_while_the_switch_was_away_does_not_come_back() {
    let test = "what_was_removed_while_the_switch_was_away_does_not_come_back";
    let Some(machine) = Machine::new(test) else { return };
    machine.ok("docker network create -d sluice --subnet 10.9.0.0/24 net1");
    machine.sleeper("c1", "--network net1");
    machine.sleeper("c2", "--network net1");
    machine.end(Daemon::Sluiced, "KILL");
    machine.ok("docker rm -f c1");
    machine.start(Daemon::Sluiced);
    machine.comes_to("sluice docker status");
    let status = machine.ok("sluice docker status");
    assert_eq!(status.matches("joined").count(), 1, "{status}");
    machine.ping("c2", "10.9.0.1");
    machine.ok("docker rm -f c2");
    machine.ok("docker network rm net1");
    machine.is_clean();
}
