//! The six operations.
//!
//! An answer is one JSON object on standard output, written at once; standard error is a log for people. A failure is an
//! answer too, and the exit code is not zero then.

mod add;
mod check;
mod del;
mod gc;
mod inline;
mod plan;
mod status;
mod undo;
mod version;

use crate::error::{Code, Failure};
use crate::ipam::Ipam;
use crate::link::{self, LinkError};
use crate::spec::{Command, Environment, Version};
use crate::switch::Waiter;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// Longest configuration, in bytes, that is read.
const MAX_CONFIG_LEN: u64 = 16 << 20;

/// One call of the plugin.
struct Call<'a> {
    environment: &'a Environment,
    /// Standard input.
    input: &'a [u8],
    waiter: Waiter,
}

impl Call<'_> {
    /// The container's network namespace, which is there and is not our own.
    fn netns(&self) -> Result<&Path, Failure> {
        let Some(netns) = self.environment.netns.as_deref() else {
            return Err(Failure::new(Code::InvalidNetns, "CNI_NETNS is empty"));
        };
        if !link::is_netns(netns) {
            let msg = format!("there is no network namespace at {}", netns.display());
            return Err(Failure::new(Code::InvalidNetns, msg).details("CNI_NETNS is the path of the container's"));
        }
        if !self.environment.netns_override && link::same_netns(netns) {
            let msg = format!("{} is the plugin's own network namespace", netns.display());
            let next = "CNI_NETNS is the path of the container's; containers with the host's network need no plugin";
            return Err(Failure::new(Code::InvalidNetns, msg).details(next));
        }
        Ok(netns)
    }

    fn ipam(&self) -> Result<Ipam, Failure> {
        Ok(Ipam::open(self.input, self.environment)?)
    }
}

/// Does what the environment and the standard input of this process say.
pub fn main() -> ExitCode {
    answer_panics();
    let environment = match Environment::read(|name| std::env::var_os(name)) {
        Ok(environment) => environment,
        Err(failure) => return print_failure(&failure, Version::NEWEST),
    };
    if environment.command == Command::Version {
        return print(&version::run());
    }
    let mut input = Vec::new();
    if let Err(e) = std::io::stdin().lock().take(MAX_CONFIG_LEN).read_to_end(&mut input) {
        return print_failure(&Failure::new(Code::Io, format!("cannot read standard input: {e}")), Version::NEWEST);
    }
    match operate(&environment, &input) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(result)) => print(&result),
        Err(failure) => print_failure(&failure, version::of_input(&input)),
    }
}

/// Does one operation, with this configuration; gives its result. The calling thread should do nothing else afterwards: if the
/// configuration names a lab, it ends up in the lab's network namespace.
///
/// # Errors
/// What the plugin would print.
pub fn operate(environment: &Environment, input: &[u8]) -> Result<Option<Value>, Failure> {
    version::allows(environment.command, input)?;
    match crate::lab::enter(input, environment)? {
        // With the lab went what there was to be collected.
        Some(call) if call.is_gone && environment.command == Command::Gc => Ok(None),
        Some(call) => run(&call.environment, &call.input),
        None => run(environment, input),
    }
}

fn run(environment: &Environment, input: &[u8]) -> Result<Option<Value>, Failure> {
    let waiter = Waiter::new().map_err(|e| Failure::new(Code::Io, format!("cannot wait for the switch: {e}")))?;
    let call = Call { environment, input, waiter };
    match environment.command {
        Command::Add => add::run(call).map(Some),
        Command::Del => del::run(call).map(|()| None),
        Command::Check => check::run(call).map(|()| None),
        Command::Gc => gc::run(call).map(|()| None),
        Command::Status => status::run(call).map(|()| None),
        Command::Version => Ok(Some(version::run())),
    }
}

/// How a failure with an interface is told.
fn link_failure(error: LinkError) -> Failure {
    let code = match &error {
        LinkError::NetnsGone { .. } | LinkError::NotNetns { .. } | LinkError::HostNetns { .. } => Code::InvalidNetns,
        LinkError::Exists { .. } | LinkError::HostExists { .. } | LinkError::Foreign { .. } => Code::NameTaken,
        LinkError::Name { .. } | LinkError::Sysctl { .. } => Code::InvalidConfig,
        LinkError::TapChecksum { .. } => Code::UnsupportedField,
        LinkError::Duplicate { .. } => Code::AddressUnavailable,
        LinkError::Unsettled { .. } | LinkError::NoTun { .. } | LinkError::Kernel { .. } => Code::Link,
    };
    Failure::new(code, error.to_string())
}

/// A fault of this program is an answer too. A thread's panic that the main thread lives to tell of is left to that.
fn answer_panics() {
    let log = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log(panic);
        if cfg!(panic = "abort") || std::thread::current().name() == Some("main") {
            let next = "send DEL for this container, and report what standard error says";
            let failure = Failure::new(Code::Internal, format!("sluice-cni is at fault: {panic}")).details(next);
            _ = print_failure(&failure, Version::NEWEST);
        }
    }));
}

/// One write of all of it, so that what is printed is whole or not there.
fn print(value: &Value) -> ExitCode {
    let mut text = value.to_string();
    text.push('\n');
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn print_failure(failure: &Failure, version: Version) -> ExitCode {
    _ = print(&failure_json(failure, version));
    ExitCode::FAILURE
}

fn failure_json(failure: &Failure, version: Version) -> Value {
    let mut value = json!({"cniVersion": version.as_str(), "code": failure.code, "msg": failure.msg});
    if !failure.details.is_empty() {
        value["details"] = failure.details.clone().into();
    }
    value
}
