//! Addresses of containers: our own management of them, or another plugin's.
//!
//! [`Ipam`] is what an operation uses: opened from the network's configuration and the environment, it adds, releases,
//! checks, collects and answers for the state of the addresses of that network. An `ipam` without `type`, or of type
//! `sluice`, is our own; another `type` is the name of a plugin that is run; without `ipam` there are no addresses.
//!
//! Our own keeps what is taken in one crash-safe file for all networks of a data directory, in which the next
//! free address is found in the same time whatever is taken. Round robin, so that a released
//! address comes again as late as can be; and not before its cooldown is over while others are free. Reservations of
//! the reference's `host-local` are honoured, and [`Ipam::migrate`] takes them over.
//!
//! [`Pools`] has the addresses of Docker's networks in the same store.
//!
//! Everything blocks: on the disk, the lock of the store (bounded), and the run of another plugin (not bounded: a DHCP
//! server may take its time, and the runtime ends us).

mod address;
mod config;
mod count;
mod delegate;
mod error;
mod foreign;
mod migrate;
mod own;
mod pools;
mod range;
mod reclaim;
mod resolver;
mod search;
mod store;
#[cfg(test)]
mod tests;

pub use config::{CNI_ARGS_NAMES, COOLDOWN_S};
pub use count::Count;
pub use error::IpamError;
pub use migrate::Migration;
pub use pools::{AddressUse, DEFAULT_POOLS, DefaultPool, Pool, PoolRequest, Pools};
pub use reclaim::Reclaimed;
pub use store::Record;

use crate::spec::{AddResult, Attachment, CniArgs, Command, Environment};
use config::{Conf, Kind};
use delegate::{Delegate, Subject};
use own::{Moment, Own};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Addresses with their owners, in order of addresses.
pub type Reserved = Vec<(IpAddr, Record)>;

/// The management of one network's addresses, for one call.
#[derive(Debug)]
pub struct Ipam {
    network: String,
    /// Whom the call is about; the names are empty for GC and STATUS.
    who: Attachment,
    netns: String,
    path: Vec<PathBuf>,
    by: By,
}

#[derive(Debug)]
enum By {
    Nobody,
    Own(Box<Own>),
    Other(Delegate),
}

impl Ipam {
    /// Reads the configuration (all of standard input) with what the environment says. For DEL and GC it need make no sense
    /// any more: what was reserved while it did can be released.
    ///
    /// # Errors
    /// A configuration or request that is wrong, or an IPAM plugin that is not there.
    pub fn open(stdin: &[u8], environment: &Environment) -> Result<Self, IpamError> {
        let netns = environment.netns.as_ref().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let conf = match environment.command {
            Command::Del | Command::Gc => Conf::read_to_release(stdin)?,
            _ => Conf::read(stdin, &environment.args, &environment.container_id)?,
        };
        let who = environment.attachment(&conf.network);
        Self::new(conf, who, netns, environment.path.clone(), stdin)
    }

    /// For programs of an operator, which are no runtime: there is a configuration, and no container.
    ///
    /// # Errors
    /// As [`Ipam::open`].
    pub fn of_network(stdin: &[u8], path: &[PathBuf]) -> Result<Self, IpamError> {
        let conf = Conf::read(stdin, &CniArgs::default(), "")?;
        let who = Attachment { network: conf.network.clone(), container_id: String::new(), ifname: String::new() };
        Self::new(conf, who, String::new(), path.to_vec(), stdin)
    }

    fn new(conf: Conf, who: Attachment, netns: String, path: Vec<PathBuf>, stdin: &[u8]) -> Result<Self, IpamError> {
        crate::spec::is_name("the network's name", &conf.network)
            .map_err(|e| IpamError::Config { key: "name".into(), why: e.to_string() })?;
        let by = match conf.kind {
            Kind::None => By::Nobody,
            Kind::Own(settings) => By::Own(Box::new(Own { network: conf.network.clone(), settings: *settings })),
            Kind::Delegate(name) => By::Other(Delegate::find(&name, &path, &conf.cni_version, stdin)?),
        };
        Ok(Self { network: conf.network, who, netns, path, by })
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Whether there are addresses at all.
    pub fn is_used(&self) -> bool {
        !matches!(self.by, By::Nobody)
    }

    fn subject(&self) -> Subject<'_> {
        let who = (!self.who.container_id.is_empty()).then_some(&self.who);
        Subject { who, netns: &self.netns, path: &self.path }
    }

    /// ADD: reserves addresses. All or none are reserved.
    ///
    /// # Errors
    /// None is left, what was asked for cannot be given, the attachment has addresses already, or the store or the plugin failed.
    pub fn add(&self) -> Result<AddResult, IpamError> {
        match &self.by {
            By::Nobody => Ok(AddResult::default()),
            By::Own(own) => {
                let (result, reclaimed) = own.add(&self.who, &self.netns, &now())?;
                log(&reclaimed);
                Ok(result)
            }
            By::Other(delegate) => delegate.add(&self.subject()),
        }
    }

    /// DEL: releases the addresses; none is no error.
    ///
    /// # Errors
    /// The store or the plugin failed.
    pub fn del(&self) -> Result<(), IpamError> {
        match &self.by {
            By::Nobody => Ok(()),
            By::Own(own) => own.del(&self.who, &now()).map(|(_, reclaimed)| log(&reclaimed)),
            By::Other(delegate) => delegate.del(&self.subject()),
        }
    }

    /// CHECK: compares what is reserved with the addresses of the previous result, which may be none.
    ///
    /// # Errors
    /// They differ, or the store or the plugin failed.
    pub fn check(&self, ips: &[IpAddr]) -> Result<(), IpamError> {
        match &self.by {
            By::Nobody => Ok(()),
            By::Own(own) => own.check(&self.who, ips),
            By::Other(delegate) => delegate.check(&self.subject()),
        }
    }

    /// GC: releases what belongs to no attachment of `valid` in this network; what our own management released.
    ///
    /// # Errors
    /// The store or the plugin failed.
    pub fn gc<'v>(&self, valid: impl IntoIterator<Item = &'v Attachment>) -> Result<Vec<Reclaimed>, IpamError> {
        match &self.by {
            By::Nobody => Ok(Vec::new()),
            By::Own(own) => {
                let valid = valid.into_iter().map(|a| (a.container_id.as_str(), a.ifname.as_str())).collect();
                let freed = own.gc(&valid, &now())?;
                log(&freed);
                Ok(freed)
            }
            By::Other(delegate) => delegate.gc(&self.subject()).map(|()| Vec::new()),
        }
    }

    /// STATUS: whether an ADD would get its addresses now.
    ///
    /// # Errors
    /// It would not, and why.
    pub fn status(&self) -> Result<(), IpamError> {
        match &self.by {
            By::Nobody => Ok(()),
            By::Own(own) => own.status(&now()).map(|reclaimed| log(&reclaimed)),
            By::Other(delegate) => delegate.status(&self.subject()),
        }
    }

    /// Takes over the reservations of `host-local`'s directory for this network; with `dry_run`, says what would be taken.
    /// `None` where addresses are not managed here.
    ///
    /// # Errors
    /// The store failed, or the directory cannot be read or written.
    pub fn migrate(&self, dry_run: bool) -> Result<Option<Migration>, IpamError> {
        match &self.by {
            By::Own(own) => own.migrate(dry_run, &now()).map(Some),
            By::Nobody | By::Other(_) => Ok(None),
        }
    }

    /// Free, used and resting addresses by set; none where another plugin manages them, which has no way to say.
    ///
    /// # Errors
    /// The store failed.
    pub fn counts(&self) -> Result<Vec<Count>, IpamError> {
        match &self.by {
            By::Own(own) => own.counts(),
            By::Nobody | By::Other(_) => Ok(Vec::new()),
        }
    }

    /// The addresses that our own management has reserved for this attachment.
    ///
    /// # Errors
    /// The store failed.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, IpamError> {
        match &self.by {
            By::Own(own) => own.addresses_of(&self.who),
            By::Nobody | By::Other(_) => Ok(Vec::new()),
        }
    }

    /// Everything that our own management has reserved in this network, in order of addresses.
    ///
    /// # Errors
    /// The store failed.
    pub fn reservations(&self) -> Result<Reserved, IpamError> {
        let By::Own(own) = &self.by else { return Ok(Vec::new()) };
        let all = own.store().read(|view| view.reservations(Some(&self.network)))?;
        Ok(all.into_iter().flatten().map(|(_, address, record)| (address.to_ip(), record)).collect())
    }
}

/// This moment, on this kernel.
fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment { now_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX), boot_id: reclaim::boot_id() }
}

/// Standard error is a plugin's log.
fn log(reclaimed: &[Reclaimed]) {
    for one in reclaimed {
        eprintln!("sluice-cni: {one}");
    }
}
