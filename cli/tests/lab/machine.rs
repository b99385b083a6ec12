//! Machines that labs are on, as network namespaces.

use super::*;
use std::process::{Child, Output};

/// A network namespace that stands for a machine, as a process that sleeps in it.
pub(crate) struct Machine(Child);

impl Machine {
    pub(crate) fn new() -> Self {
        let mut command = Command::new("unshare");
        let command = command.args(["--net", "sh", "-c", "echo; exec sleep 600"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
    }

    /// A user whose commands run there.
    pub(crate) fn user(&self) -> User {
        let mut user = User::new();
        user.through = ["nsenter", "-t", &self.0.id().to_string(), "-n"].map(str::to_owned).to_vec();
        user
    }

    /// Runs a command there, which must succeed.
    pub(crate) fn run(&self, command: &str) {
        let done = self.output(command);
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// What a command there says.
    pub(crate) fn output(&self, command: &str) -> Output {
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &self.0.id().to_string(), "-n"]).args(command.split(' '));
        enter.output().unwrap()
    }

    /// Starts a command there, which ends with what is returned.
    pub(crate) fn start(&self, command: &str) -> Self {
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &self.0.id().to_string(), "-n"]).args(command.split(' '));
        Self(enter.spawn().unwrap())
    }

    /// Joins both by interfaces that are called `wire`, with these addresses.
    pub(crate) fn join(&self, other: &Self, mtu: u32, addresses: &[[&str; 2]]) {
        self.run(&format!("ip link add wire mtu {mtu} type veth peer name wire mtu {mtu} netns {}", other.0.id()));
        for (index, machine) in [self, other].into_iter().enumerate() {
            addresses.iter().for_each(|pair| machine.run(&format!("ip addr add {} dev wire nodad", pair[index])));
            machine.run("ip link set wire up");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
