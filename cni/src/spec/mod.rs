//! The protocol between container runtimes and plugins, as data: the CNI specification 1.1.0 and all before it.
//!
//! Everything inside works with what 1.1.0 says; older forms are converted where they come in and go out ([`AddResult`]).

mod args;
mod attachment;
pub mod config;
mod environment;
mod result;
mod version;

pub use args::CniArgs;
pub use attachment::{Attachment, InvalidName, is_ifname, is_name};
pub use config::{Base, Config, Ipam};
pub use environment::{Command, Environment};
pub use result::{AddResult, Dns, Interface, IpConfig, ResultError, Route};
pub use version::{UnknownVersion, Version};
