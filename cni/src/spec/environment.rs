//! The environment that a runtime starts a plugin with.

use super::{Attachment, CniArgs, is_ifname, is_name};
use crate::error::{Code, Failure};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the plugin is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Take an attachment away.
    Del,
    /// Compare an attachment with what it should be.
    Check,
    /// Take away all attachments of a network but those named.
    Gc,
    /// Say whether an attachment would be made.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl Command {
    /// Every command.
    pub const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// As `CNI_COMMAND` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The variables that must not be empty, in the order that a message names them.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &[CONTAINERID, NETNS, IFNAME, PATH],
            Self::Del => &[CONTAINERID, IFNAME, PATH],
            Self::Gc | Self::Status => &[PATH],
            Self::Version => &[],
        }
    }
}

const COMMAND: &str = "CNI_COMMAND";
const CONTAINERID: &str = "CNI_CONTAINERID";
const NETNS: &str = "CNI_NETNS";
const IFNAME: &str = "CNI_IFNAME";
const ARGS: &str = "CNI_ARGS";
const PATH: &str = "CNI_PATH";
const NETNS_OVERRIDE: &str = "CNI_NETNS_OVERRIDE";

/// The variables of one call. What a command does not need may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; none if it is empty.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: CniArgs,
    /// `CNI_PATH`: the folders with plugins, in the order that they are searched.
    pub path: Vec<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: whether the namespace may be the one that the plugin itself is in.
    pub netns_override: bool,
}

impl Environment {
    /// Reads and checks the variables; `variable` gives one of them by name.
    ///
    /// # Errors
    /// [`Code::BadEnvironment`], with all that are missing, or the first that is not valid.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let text = |name: &str| match variable(name).unwrap_or_default().into_string() {
            Ok(text) => Ok(text),
            Err(odd) => {
                Err(Failure::new(Code::BadEnvironment, format!("{name} is not text: {}", odd.to_string_lossy())))
            }
        };
        let wanted = text(COMMAND)?;
        let known = || Command::ALL.map(Command::as_str).join(", ");
        if wanted.is_empty() {
            let msg = format!("required env variables [{COMMAND}] missing");
            return Err(Failure::new(Code::BadEnvironment, msg).details(format!("it is one of {}", known())));
        }
        let Some(command) = Command::ALL.into_iter().find(|c| c.as_str() == wanted) else {
            let msg = format!("unknown {COMMAND}: {wanted}");
            return Err(Failure::new(Code::BadEnvironment, msg).details(format!("it is one of {}", known())));
        };
        let missing: Vec<&str> =
            command.needs().iter().copied().filter(|n| variable(n).is_none_or(|v| v.is_empty())).collect();
        if !missing.is_empty() {
            let msg = format!("required env variables [{}] missing for {wanted}", missing.join(","));
            return Err(Failure::new(Code::BadEnvironment, msg));
        }
        let environment = Self {
            command,
            container_id: text(CONTAINERID)?,
            netns: variable(NETNS).filter(|n| !n.is_empty()).map(PathBuf::from),
            ifname: text(IFNAME)?,
            args: if command == Command::Version { CniArgs::default() } else { CniArgs::parse(&text(ARGS)?)? },
            path: variable(PATH).map(|p| std::env::split_paths(&p).collect()).unwrap_or_default(),
            netns_override: matches!(text(NETNS_OVERRIDE)?.to_ascii_lowercase().as_str(), "1" | "t" | "true"),
        };
        if command.needs().contains(&CONTAINERID) {
            let valid = is_name(CONTAINERID, &environment.container_id).and_then(|()| is_ifname(&environment.ifname));
            valid.map_err(|e| Failure::new(Code::BadEnvironment, e.to_string()))?;
        }
        Ok(environment)
    }

    /// The attachment that this call is about.
    pub fn attachment(&self, network: &str) -> Attachment {
        Attachment { network: network.to_owned(), container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Failure> {
        Environment::read(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    }

    const ALL: [(&str, &str); 6] = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni"),
        ("CNI_ARGS", "IP=10.1.2.3"),
        ("CNI_NETNS_OVERRIDE", "true"),
    ];

    fn with(command: &'static str, less: &[&str]) -> Result<Environment, Failure> {
        let mut variables = vec![("CNI_COMMAND", command)];
        variables.extend(ALL.iter().filter(|(name, _)| !less.contains(name)));
        read(&variables)
    }

    #[test]
    fn everything_is_read() {
        let add = with("ADD", &[]).expect("all is there");
        assert_eq!((add.command, add.container_id.as_str(), add.ifname.as_str()), (Command::Add, "c1", "eth0"));
        assert_eq!(add.netns, Some(PathBuf::from("/run/netns/c1")));
        assert_eq!(add.path, [PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")]);
        assert_eq!(add.args.get("IP"), Some("10.1.2.3"));
        assert!(add.netns_override);
    }

    #[test]
    fn each_command_names_all_that_it_misses_and_needs_no_more() {
        let needs: [(&str, &[&str]); 6] = [
            ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
            ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
            ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
            ("GC", &["CNI_PATH"]),
            ("STATUS", &["CNI_PATH"]),
            ("VERSION", &[]),
        ];
        for (command, names) in needs {
            let others: Vec<&str> = ALL.iter().map(|(n, _)| *n).filter(|n| !names.contains(n)).collect();
            assert!(with(command, &others).is_ok(), "{command} needs no more than {names:?}");
            if names.is_empty() {
                continue;
            }
            let failure = with(command, names).expect_err("they are missing");
            let msg = format!("required env variables [{}] missing for {command}", names.join(","));
            assert_eq!(failure, Failure::new(Code::BadEnvironment, msg));
        }
    }

    #[test]
    fn no_command_and_an_unknown_one_are_a_bad_environment() {
        for variables in [&[][..], &[("CNI_COMMAND", "")], &[("CNI_COMMAND", "PRUNE")], &[("CNI_COMMAND", "add")]] {
            assert!(read(variables).is_err_and(|e| e.is(Code::BadEnvironment)), "{variables:?}");
        }
    }

    #[test]
    fn names_that_are_not_valid_are_a_bad_environment() {
        for (name, value) in [("CNI_CONTAINERID", "../etc"), ("CNI_IFNAME", "a/b"), ("CNI_IFNAME", "sixteen-letters-")]
        {
            let mut variables: Vec<_> = ALL.into_iter().filter(|(n, _)| *n != name).collect();
            variables.extend([(name, value), ("CNI_COMMAND", "DEL")]);
            let failure = read(&variables).expect_err(value);
            assert!(failure.is(Code::BadEnvironment) && failure.msg.contains(value), "{failure}");
        }
    }
}
