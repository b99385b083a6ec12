//! The process that owns a running lab.
//!
//! It is the first process of a PID namespace and the only holder of the hosts' namespaces and of the switch. There is
//! nothing to clean up after it but a folder: when it ends, in whatever way, the kernel ends every process of the lab
//! and takes back every namespace, interface and socket.

use super::dhcp;
use super::launch::{Order, Word, no_namespace};
use super::machine::Machine;
use super::namespace;
use super::run::Commands;
use super::runtime::Runtime;
use super::state::{Identity, Namespace, Phase, State};
use super::switching::{Around, Switching};
use super::topology::resolved::Host;
use super::wiring;
use crate::failure::Failure;
use crate::output::Exit;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, fstat, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// The verb that this program starts itself as. The lab's name follows, for those who read the list of processes.
pub(crate) const VERB: &str = "supervise";

/// Makes the lab that is ordered on standard input, then keeps it until a signal ends it.
///
/// # Errors
/// Nobody is there to be told; main writes it to the log.
pub(crate) fn run() -> Result<(), Failure> {
    let signals = signals()?;
    // Standard error is the lab's log.
    tracing_subscriber::fmt().with_ansi(false).with_writer(io::stderr).with_max_level(tracing::Level::INFO).init();
    let mut caller =
        Caller::take().map_err(|error| Failure::new(format!("this verb is for `lab up` alone: {error}")))?;
    let order = caller.order()?;
    let folder = Runtime::at(&order.runtime).lab(&order.topology.name);
    let result = stay_at_machine(&order).and_then(|machine| {
        leave_machine()?;
        make(order, machine, &folder, &mut caller)
    });
    let mut lab = match result {
        Ok(lab) => lab,
        Err(failure) => {
            remove(&folder);
            caller.say(&Word::Failed(failure)).map_err(|error| Failure::new(error.to_string()))?;
            return Ok(());
        }
    };
    // If nobody waits for the lab any more, nobody wants it.
    if caller.say(&Word::Ready).is_ok() {
        drop(caller);
        wait_for_end(&signals, &mut lab.commands);
    }
    lab.end();
    remove(&folder);
    Ok(())
}

/// Leaves a thread behind in the machine's network namespace, if a tunnel goes to another machine or there is an uplink.
fn stay_at_machine(order: &Order) -> Result<Option<Machine>, Failure> {
    let topology = &order.topology;
    if topology.uplink.is_none() && topology.tunnels.iter().all(|tunnel| tunnel.over.is_some()) {
        return Ok(None);
    }
    if topology.uplink.is_some() && order.rootless {
        return Err(Failure::new("an uplink needs the right to change the machine's network")
            .why("`uplink:` makes an interface and rules on the machine; the rest of a lab needs no privilege")
            .next("sudo sluice lab up, or leave `uplink:` out")
            .exit(Exit::NoPrivilege));
    }
    Machine::start().map(Some).map_err(|error| Failure::new(format!("cannot start a thread: {error}")))
}

/// Everything whose end ends the lab.
struct Running {
    hosts: Vec<Host>,
    namespaces: Vec<OwnedFd>,
    switching: Switching,
    commands: Commands,
}

impl Running {
    /// Ends the lab sooner than the kernel would by itself.
    fn end(self) {
        let hosts: Vec<_> = self.hosts.iter().zip(self.namespaces).collect();
        namespace::unmake(&hosts);
        self.switching.end();
    }
}

/// The `lab up` that waits for us.
struct Caller(BufReader<UnixStream>);

impl Caller {
    /// Takes the socket that is our standard input, and leaves `/dev/null` there.
    fn take() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        let socket = UnixStream::from(socket);
        socket.peer_addr()?;
        Ok(Self(BufReader::new(socket)))
    }

    fn order(&mut self) -> Result<Order, Failure> {
        let mut line = String::new();
        let failed = |error: io::Error| Failure::new(format!("cannot read the order: {error}"));
        self.0.read_line(&mut line).map_err(failed)?;
        serde_json::from_str(&line).map_err(|error| failed(error.into()))
    }

    fn say(&mut self, word: &Word) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)
    }
}

/// Blocks the signals that end the lab or tell of dead children, so that they can be waited for. Must happen before the
/// first thread is started. A PID namespace's first process gets no other signal from inside the lab.
fn signals() -> Result<SigSet, Failure> {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().for_each(|signal| signals.add(signal));
    let failed = |errno: Errno| Failure::new(format!("cannot block signals: {errno}"));
    signals.thread_block().map_err(failed)?;
    Ok(signals)
}

/// Leaves everything that ties the process to the terminal and the machine.
fn leave_machine() -> Result<(), Failure> {
    let failed = |what: &'static str| move |errno: Errno| Failure::new(format!("cannot {what}: {errno}"));
    // A session leader already, when started by hand.
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(c"sluice-lab");
    umask(Mode::from_bits_truncate(0o077));
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed("read the limit of open files"))?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(failed("raise the limit of open files"))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| no_namespace("a network namespace", errno))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
        .map_err(|errno| no_namespace("a mount and an IPC namespace", errno))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("keep mounts to itself"))
}

fn make(
    order: Order,
    machine: Option<Machine>,
    folder: &std::path::Path,
    caller: &mut Caller,
) -> Result<Running, Failure> {
    let failed = |what: &'static str| move |error: io::Error| Failure::new(format!("cannot {what}: {error}"));
    let identity = Identity::of(outer_pid()?, order.pid_namespace).map_err(failed("read /proc"))?;
    let socket = folder.join("switch.sock");
    let mut state = State::starting(identity, order.topology, socket, order.rootless);
    state.attachment = order.attachment.unwrap_or_else(namespace::attachment);
    state.write(folder).map_err(failed("write the state file"))?;
    caller.say(&Word::Claimed).map_err(failed("answer"))?;
    let hosts = wiring::namespaces(&state.topology);
    let made = namespace::make(&hosts, state.attachment, order.workers)?;
    let (mut namespaces, mut ports) = (Vec::new(), Vec::new());
    for host in made {
        let name = host.host.clone();
        let (namespace, mut host_ports) = host.into_ports(order.workers)?;
        let inode = fstat(&namespace).map_err(|errno| failed("look at a namespace")(errno.into()))?.st_ino;
        state.namespaces.push(Namespace { host: name, fd: namespace.as_raw_fd(), inode });
        namespaces.push(namespace);
        ports.append(&mut host_ports);
    }
    let stacks = hosts.iter().zip(&namespaces).skip(state.topology.hosts.len());
    let stacks = stacks.map(|(stack, namespace)| (stack.name.as_str(), namespace.as_fd())).collect();
    let around = Around { stacks, machine: machine.as_ref() };
    let switching = Switching::start(&state.topology, ports, &around, order.workers, &state.socket)?;
    let names: Vec<_> = hosts.iter().map(|host| host.name.as_str()).zip(&namespaces).collect();
    super::names::write(&state.topology, folder).map_err(failed("write the files of names"))?;
    dhcp::start(&state.topology, folder, machine.as_ref(), |name| {
        names.iter().find(|(host, _)| *host == name).map(|(_, fd)| *fd)
    })?;
    state.phase = Phase::Running;
    let commands = Commands::start(&state, &namespaces, folder, &order.working)?;
    state.write(folder).map_err(failed("write the state file"))?;
    Ok(Running { hosts, namespaces, switching, commands })
}

/// Our process number as our caller sees it: `/proc` is still the caller's.
fn outer_pid() -> Result<i32, Failure> {
    let link = std::fs::read_link("/proc/self");
    let pid = link.as_ref().ok().and_then(|link| link.to_str()?.parse().ok());
    pid.ok_or_else(|| Failure::new(format!("cannot read /proc/self: {link:?}")))
}

/// Waits for the signal that ends the lab, and meanwhile buries the children that a first process inherits.
fn wait_for_end(signals: &SigSet, commands: &mut Commands) {
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    if status == WaitStatus::StillAlive {
                        break;
                    }
                    commands.ended(status);
                }
            }
            Ok(_) => return,
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn remove(folder: &PathBuf) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        eprintln!("cannot remove {}: {error}", folder.display());
    }
}
