//! What the switch is to do, brought into force: the only part that speaks to the switch.
//!
//! Others say what each [`Object`] needs ([`Program::set`]); one task makes the switch have it, and keeps it so. All that has been set
//! within a few milliseconds goes in one bundle, which holds differences only; there is never more than one bundle under way, so what
//! is set meanwhile waits and goes together.
//!
//! # Rules
//! - A connection is begun with everything, as one bundle in the place of all flows with our cookie: what is the same stays and keeps
//!   its counters, the rest comes and goes in one step. So a start of the controller changes nothing that has not changed, and a
//!   switch that starts has everything at once.
//! - Nothing is sent before [`Program::ready`]: an earlier start's flows stay in force until all lists are complete.
//! - Groups come before the flows that name them and go after them; a bundle is one step for packets, so there is no gap.
//! - A part that the switch refuses is put aside with what the switch said ([`Status::refused`]); what it had before stays, and the
//!   other parts go in. It is tried again when it is set to something else, and with each new connection.
//! - Groups have no cookie: ours are those whose owner is of a kind that only node controllers use ([`OWNERS`]).
//! - What others do to our flows is mended: a second after they delete or change flows, and every minute if anything has changed at
//!   all. Comparing takes a twentieth of the time at most.
//!
//! # Limits
//! A million flows and groups, which is what a bundle may hold.

mod bundle;
mod channel;
mod compare;
mod events;
mod plan;
mod round;
mod session;
mod switch;
mod task;

pub use events::{Event, Events};
pub use switch::Switch;

use crate::flow::{Object, Part};
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tonic::Code;

/// Where a switch is when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/sluice/switch.sock";
/// What the owners of our groups begin with.
pub const OWNERS: [&str; 4] = ["svc:", "pod:", "node:", "builtin:"];

/// Which switch, and which bridge of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its socket.
    pub socket: PathBuf,
    /// The bridge that the program is for.
    pub bridge: String,
    /// The file with the number of the last start; its folder is made as needed.
    pub round_file: PathBuf,
}

/// Why the switch did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SwitchError {
    /// Nobody answers.
    #[error("the switch on {} is away: {why}", socket.display())]
    Away {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the system says.
        why: String,
    },
    /// It does not answer in time.
    #[error("the switch on {} does not answer within {seconds} s; see what it is doing: sluice status", socket.display())]
    Slow {
        /// Where it is.
        socket: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// It answered, and refuses.
    #[error("{why}")]
    Refused {
        /// What kind of refusal it is.
        code: Code,
        /// The switch's words.
        why: String,
    },
}

impl SwitchError {
    fn of(socket: &Path, status: &tonic::Status) -> Self {
        // The switch itself answers with a status and no source; a source is what broke the connection.
        let mut source = std::error::Error::source(status);
        let mut why = status.message().to_owned();
        let broke = source.is_some() || matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown);
        while let Some(error) = source {
            why = error.to_string();
            source = error.source();
        }
        if broke {
            return Self::Away { socket: socket.to_owned(), why };
        }
        Self::Refused { code: status.code(), why }
    }
}

/// What is in the way of all that was set being in force.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unsettled {
    /// [`Program::ready`] was not called yet.
    #[error("the lists are not complete yet, so that nothing is changed in the switch")]
    NotReady,
    /// The switch is away, or does not take anything. It goes on being tried.
    #[error("{0}")]
    Behind(SwitchError),
    /// Everything else is in force.
    #[error("the switch refuses what {} needs: {}", name(&refused[0].0), refused[0].1)]
    Refused {
        /// What was put aside, at least one, and what the switch says of each.
        refused: Vec<(Object, String)>,
    },
    /// Nothing is programmed any more: the program has ended.
    #[error("the program has ended")]
    Ended,
}

/// An object in words.
pub(crate) fn name(object: &Object) -> String {
    match object {
        Object::Base => "every node".to_owned(),
        Object::Peer(name) => format!("node {name}"),
        Object::Pod(port) => format!("the Pod on port {port}"),
        Object::Service(name) => format!("Service {name}"),
        Object::Policy(flow) => {
            format!("policies at table {}, priority {}, {}", flow.table, flow.priority, flow.matching)
        }
    }
}

/// How the program is.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether there is a connection to the switch.
    pub connected: bool,
    /// Whether [`Program::ready`] was called.
    pub ready: bool,
    /// Since when the switch has been given all there is, as it comes; none while it has not.
    pub in_step_since: Option<SystemTime>,
    /// Number of objects whose change is not in force yet.
    pub pending: usize,
    /// Number of objects.
    pub objects: usize,
    /// Number of flows in force.
    pub flows: usize,
    /// Number of groups in force.
    pub groups: usize,
    /// What the switch refused, and what it said of it.
    pub refused: Vec<(Object, String)>,
    /// What went wrong last with the switch as a whole, and when.
    pub last_error: Option<(SystemTime, String)>,
    /// The number of this start, which is our flows' generation.
    pub round: u64,
    /// Bundles that were done.
    pub bundles: u64,
    /// Changes to flows and groups in them.
    pub changes: u64,
    /// How long bundles took, summed up: to be put together, sent and done.
    pub bundle_time: Duration,
    /// How long the last one took.
    pub last_bundle_time: Duration,
    /// How often all that the switch has was compared with what it is to have.
    pub comparisons: u64,
    /// How often what others had changed was put right.
    pub mended: u64,
    /// How often the connection was made.
    pub connections: u64,
}

/// What is wanted.
#[derive(Debug, Default)]
struct Wanted {
    parts: HashMap<Arc<Object>, Arc<Part>, RandomState>,
    /// What has changed since the task looked last.
    changed: HashSet<Arc<Object>, RandomState>,
    /// Raised by each change.
    version: u64,
    ready: bool,
}

/// How far the task is.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// The version of what is wanted that is in force.
    done: u64,
    /// Whether the switch has it.
    in_step: bool,
    /// What is in the way.
    behind: Option<SwitchError>,
}

/// What the handles and the task have in common.
#[derive(Debug)]
struct Shared {
    config: Config,
    wanted: Mutex<Wanted>,
    changed: Notify,
    progress: watch::Sender<Progress>,
    status: Mutex<Status>,
}

/// What the switch is to do. All handles are of the same program, which ends with the last of them; the switch goes on with what it
/// has.
#[derive(Clone, Debug)]
pub struct Program {
    shared: Arc<Shared>,
    _task: Arc<Ending>,
}

/// Ends the task on drop.
#[derive(Debug)]
struct Ending(AbortHandle);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to look for the switch, which need not be there yet. To be called inside a runtime.
///
/// # Errors
/// The number of this start cannot be read or written.
pub fn start(config: Config) -> std::io::Result<(Program, Switch, Events)> {
    let round = round::next(&config.round_file)?;
    let (channel, channels) = watch::channel(None);
    let (teller, events) = events::events();
    let switch = Switch::new(channels, &config.socket);
    let shared = Arc::new(Shared {
        config,
        wanted: Mutex::default(),
        changed: Notify::new(),
        progress: watch::Sender::new(Progress::default()),
        status: Mutex::new(Status { round, ..Status::default() }),
    });
    let task = session::Connections::new(Arc::clone(&shared), channel, teller, switch.clone(), round);
    let task = tokio::spawn(task.run());
    Ok((Program { shared, _task: Arc::new(Ending(task.abort_handle())) }, switch, events))
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    /// Notes a change; whether it is one.
    fn set(&mut self, object: Object, part: Option<Part>) -> bool {
        let there = self.parts.get_key_value(&object);
        match (there, &part) {
            (None, None) => return false,
            (Some((_, old)), Some(new)) if **old == *new => return false,
            _ => {}
        }
        let object = there.map_or_else(|| Arc::new(object), |(known, _)| Arc::clone(known));
        match part {
            Some(part) => drop(self.parts.insert(Arc::clone(&object), Arc::new(part))),
            None => drop(self.parts.remove(&object)),
        }
        self.changed.insert(object);
        self.version += 1;
        true
    }
}

impl Program {
    /// From now on an object has this part, in the place of what it had.
    pub fn set(&self, object: Object, part: Part) {
        self.change([(object, Some(part))]);
    }

    /// From now on an object has nothing.
    pub fn remove(&self, object: &Object) {
        self.change([(object.clone(), None)]);
    }

    /// Sets and removes (none) parts in one step for packets.
    pub fn change(&self, changes: impl IntoIterator<Item = (Object, Option<Part>)>) {
        let mut wanted = self.shared.wanted();
        let mut is_changed = false;
        for (object, part) in changes {
            is_changed |= wanted.set(object, part);
        }
        drop(wanted);
        if is_changed {
            self.shared.changed.notify_one();
        }
    }

    /// Removes every object for which `is_kept` says no, in one step: for lists of all that there is.
    pub fn keep_only(&self, mut is_kept: impl FnMut(&Object) -> bool) {
        let mut wanted = self.shared.wanted();
        let gone: Vec<_> = wanted.parts.keys().filter(|object| !is_kept(object)).cloned().collect();
        for object in &gone {
            wanted.set((**object).clone(), None);
        }
        drop(wanted);
        if !gone.is_empty() {
            self.shared.changed.notify_one();
        }
    }

    /// Says that what has been set is complete: until then nothing is changed in the switch.
    pub fn ready(&self) {
        self.shared.wanted().ready = true;
        self.shared.status().ready = true;
        self.shared.changed.notify_one();
    }

    /// Waits until everything that was set before is in force in the switch.
    ///
    /// # Errors
    /// What is in the way. [`Unsettled::Refused`] comes only when all else is in force.
    pub async fn settled(&self) -> Result<(), Unsettled> {
        let (version, is_ready) = {
            let wanted = self.shared.wanted();
            (wanted.version, wanted.ready)
        };
        if !is_ready {
            return Err(Unsettled::NotReady);
        }
        let mut progress = self.shared.progress.subscribe();
        let is_over = |p: &Progress| (p.in_step && p.done >= version) || p.behind.is_some();
        let behind = progress.wait_for(is_over).await.map_err(|_| Unsettled::Ended)?.behind.clone();
        if let Some(error) = behind {
            return Err(Unsettled::Behind(error));
        }
        let refused = self.shared.status().refused.clone();
        if refused.is_empty() { Ok(()) } else { Err(Unsettled::Refused { refused }) }
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let (pending, objects) = {
            let wanted = self.shared.wanted();
            (wanted.changed.len(), wanted.parts.len())
        };
        let mut status = self.shared.status().clone();
        status.pending += pending;
        Status { objects, ..status }
    }
}

#[cfg(test)]
mod tests;
