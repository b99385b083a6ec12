//! What goes wrong with addresses.

use crate::error::{Code, Failure};
use std::net::IpAddr;
use std::path::PathBuf;

/// Why an address was not given, checked or released.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// The configuration on standard input is not JSON of the right form.
    #[error("the network's configuration cannot be read: {0}")]
    Decode(String),
    /// A key has a value that cannot be used.
    #[error("{key}: {why}")]
    Config {
        /// Where.
        key: String,
        /// What is wrong with it and what to write instead.
        why: String,
    },
    /// What was asked for in the environment or by a capability is wrong.
    #[error("{from} asks for {value:?}: {why}")]
    Request {
        /// Which of the ways to ask.
        from: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// All addresses of a set of ranges are taken.
    #[error("no address is left in {set} ({ranges}): all {size} are taken")]
    Exhausted {
        /// The set.
        set: String,
        /// Its ranges.
        ranges: String,
        /// How many addresses it has to give.
        size: u128,
    },
    /// An address that was asked for is another's.
    #[error("address {address} is taken by {owner}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        owner: String,
    },
    /// The address that is reserved for a name is held by a container from before.
    #[error("address {address}, reserved for {name}, is still held by {owner}")]
    Held {
        /// The address.
        address: IpAddr,
        /// The name.
        name: String,
        /// Who has it.
        owner: String,
    },
    /// An address that was asked for is never given.
    #[error("address {address} cannot be given: {why}")]
    Unavailable {
        /// The address.
        address: IpAddr,
        /// What it is kept for.
        why: String,
    },
    /// Addresses that were asked for are in no range, or more than one in the same set.
    #[error("{addresses} cannot be given: one address comes from each set, and the sets are {sets}")]
    Unused {
        /// The addresses left over.
        addresses: String,
        /// What there is.
        sets: String,
    },
    /// A second ADD without DEL.
    #[error("container {container_id} has address {address} for {ifname} in network {network} already")]
    Duplicate {
        /// The network.
        network: String,
        /// The container.
        container_id: String,
        /// The interface.
        ifname: String,
        /// An address that it has.
        address: IpAddr,
    },
    /// CHECK: nothing is reserved, or not what the result says.
    #[error("network {network}, container {container_id}, {ifname}: {why}")]
    Differs {
        /// The network.
        network: String,
        /// The container.
        container_id: String,
        /// The interface.
        ifname: String,
        /// What is not as ADD left it.
        why: String,
    },
    /// Another process has the store for too long.
    #[error("the store of addresses {} is busy: another process has held it for {seconds} s", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// The store cannot be opened, read or written.
    #[error("the store of addresses {}: {why}", path.display())]
    Store {
        /// Its file.
        path: PathBuf,
        /// What failed.
        why: String,
    },
    /// A file beside the store cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
    /// A pool that was asked for by its ID is not there.
    #[error("there is no pool {0:?}")]
    NoPool(String),
    /// No pool can be made as asked.
    #[error("no pool: {0}")]
    Pool(String),
    /// What another plugin answered, or why it could not be run.
    #[error("{0}")]
    Delegate(Failure),
}

impl IpamError {
    /// What to do next; may be empty.
    fn next(&self) -> &'static str {
        match self {
            Self::Exhausted { .. } => {
                "remove containers, run GC for what is left of old ones, or add a range to the set in the configuration"
            }
            Self::Taken { .. } | Self::Held { .. } => {
                "DEL of that container releases it; `sluice cni gc` releases what has no container any more"
            }
            Self::Unused { .. } => "nothing was reserved; ask for at most one address of each set",
            Self::Duplicate { .. } => "send DEL before a second ADD",
            Self::Busy { .. } => "try again; if it stays so, see which process has the file open",
            Self::Store { .. } => {
                "if the file is damaged, move it away with its containers stopped: a new one is made, and no address is known to be taken"
            }
            _ => "",
        }
    }

    /// Its number in CNI.
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::Decode,
            Self::Config { .. } => Code::InvalidConfig,
            Self::Request { .. } => Code::BadEnvironment,
            Self::Exhausted { .. } => Code::PoolExhausted,
            Self::Taken { .. } | Self::Unavailable { .. } | Self::Unused { .. } | Self::NoPool(_) | Self::Pool(_) => {
                Code::AddressUnavailable
            }
            Self::Duplicate { .. } => Code::NameTaken,
            Self::Differs { .. } => Code::Differs,
            Self::Busy { .. } | Self::Held { .. } => Code::TryAgainLater,
            Self::Store { .. } => Code::Store,
            Self::File { .. } => Code::Io,
            Self::Delegate(_) => Code::Delegate,
        }
    }
}

impl From<IpamError> for Failure {
    fn from(error: IpamError) -> Self {
        match error {
            IpamError::Delegate(failure) => failure,
            other => Self::new(other.code(), other.to_string()).details(other.next()),
        }
    }
}

impl From<redb::StorageError> for IpamError {
    /// The path is put in by the store.
    fn from(error: redb::StorageError) -> Self {
        Self::Store { path: PathBuf::new(), why: error.to_string() }
    }
}
