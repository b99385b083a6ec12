//! The six operations.

mod version;

use crate::error::{Code, Failure};
use crate::spec::{Command, Environment, Version};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::ExitCode;

/// Longest configuration, in bytes, that is read.
const MAX_CONFIG_LEN: u64 = 16 << 20;

/// Does what the environment and the standard input of this process say.
pub fn main() -> ExitCode {
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
    let version = version::of_input(&input);
    let failure =
        Failure::new(Code::UnsupportedField, format!("CNI_COMMAND {} is not done", environment.command.as_str()));
    print_failure(&failure, version)
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
