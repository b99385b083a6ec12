//! Makes the switch of one connection have what is wanted, and keeps it so.

use super::bundle::Bundle;
use super::compare::Groups;
use super::plan::{Change, Difference, Plan};
use super::session::Others;
use super::switch::{LONGEST_MESSAGE, within};
use super::{Shared, Switch, SwitchError, name};
use crate::flow::{Object, Part};
use foldhash::fast::RandomState;
use sluice_proto::v1::ApplyBundleReply;
use sluice_proto::v1::flow_service_client::FlowServiceClient;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Code;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

/// How long changes are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(3);
/// How long a bundle may take: a million flows are done in some seconds.
const BUNDLE: Duration = Duration::from_secs(120);
/// Between attempts while the switch takes nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Between attempts while the switch takes nothing, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Refusals that are looked at one by one; what else is refused is found by halves.
const FEW: usize = 8;
/// Between looks at whether the switch has what it is to have.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// After others changed flows, they are left to end what they do.
const CHECK_AFTER: Duration = Duration::from_secs(1);
/// A check is not made again before this many times what it took.
const CHECK_SHARE: u32 = 20;

/// Why a bundle was not done.
enum Failure {
    /// The switch refuses it as it is, in these words.
    Refused(String),
    /// The switch takes nothing, or is away.
    Switch(SwitchError),
}

/// What makes the switch have what is wanted.
pub(super) struct Task {
    shared: Arc<Shared>,
    switch: Switch,
    round: u64,
    /// What the switch has.
    plan: Plan,
    /// What the switch refuses, and what it says of it.
    aside: HashMap<Arc<Object>, String, RandomState>,
    /// What was told of that, so that it is told once.
    told: HashMap<Arc<Object>, String, RandomState>,
    /// The generation of the switch's model that has been found right.
    verified: Option<u64>,
}

/// Whether a switch of which nothing is known is brought into step, or one that should be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Begin,
    Check,
}

impl Task {
    pub(super) fn new(shared: Arc<Shared>, switch: Switch, round: u64) -> Self {
        let (plan, aside, told) = (Plan::default(), HashMap::default(), HashMap::default());
        Self { shared, switch, round, plan, aside, told, verified: None }
    }

    /// Goes on until it is dropped, which may be in the midst of a bundle: the next run begins with everything.
    pub(super) async fn run(&mut self, channel: Channel, others: &Others) -> Infallible {
        let mut client = FlowServiceClient::new(channel).max_decoding_message_size(LONGEST_MESSAGE);
        let mut pause = FIRST_PAUSE;
        loop {
            while !self.shared.wanted().ready {
                self.shared.changed.notified().await;
            }
            let Err(error) = self.keep(&mut client, others, &mut pause).await;
            self.fail(error);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Notes that the switch does not take what it is given.
    fn fail(&self, error: SwitchError) {
        let text = error.to_string();
        let mut status = self.shared.status();
        let is_new = status.last_error.as_ref().is_none_or(|(_, said)| *said != text);
        status.last_error = Some((SystemTime::now(), text));
        status.in_step_since = None;
        drop(status);
        if is_new {
            warn!(%error, "the switch is not brought into step");
        }
        self.shared.progress.send_modify(|p| (p.in_step, p.behind) = (false, Some(error)));
    }

    /// Brings the switch into step, and keeps it so until it fails.
    async fn keep(
        &mut self,
        client: &mut FlowServiceClient<Channel>,
        others: &Others,
        pause: &mut Duration,
    ) -> Result<Infallible, SwitchError> {
        sleep(GATHER).await;
        self.whole(client, others, Mode::Begin).await?;
        *pause = FIRST_PAUSE;
        self.shared.status().in_step_since = Some(SystemTime::now());
        let (mut at_latest, mut suspicion, mut may_check) = (Instant::now() + CHECK_EVERY, None, Instant::now());
        loop {
            let next = suspicion.unwrap_or(at_latest).min(at_latest);
            let is_due = tokio::select! {
                () = self.shared.changed.notified() => false,
                () = others.changed.notified() => {
                    suspicion.get_or_insert(may_check.max(Instant::now() + CHECK_AFTER));
                    false
                }
                () = sleep_until(next) => true,
            };
            if is_due {
                let begin = Instant::now();
                // Most of what events tell are our own bundles.
                if others.take() || (begin >= at_latest && self.has_moved().await?) {
                    self.whole(client, others, Mode::Check).await?;
                }
                may_check = Instant::now() + begin.elapsed() * CHECK_SHARE;
                if begin >= at_latest {
                    at_latest = Instant::now() + CHECK_EVERY;
                }
                suspicion = None;
            }
            if !self.shared.wanted().changed.is_empty() {
                sleep(GATHER).await;
                self.changes(client, others).await?;
            }
        }
    }

    /// Whether anything at all has changed in the switch since it was found right.
    async fn has_moved(&self) -> Result<bool, SwitchError> {
        Ok(self.verified != Some(self.switch.status().await?.model_generation))
    }

    /// Sends what has changed.
    async fn changes(&mut self, client: &mut FlowServiceClient<Channel>, others: &Others) -> Result<(), SwitchError> {
        let (version, changes) = self.take();
        let pending = changes.len();
        self.shared.status().pending = pending;
        self.bring(client, others, changes).await?;
        self.done(version);
        Ok(())
    }

    /// Takes the changes that are wanted, and their version.
    fn take(&self) -> (u64, Vec<Change>) {
        let mut wanted = self.shared.wanted();
        let changed = std::mem::take(&mut wanted.changed);
        let mut changes: Vec<Change> =
            changed.into_iter().map(|object| (Arc::clone(&object), wanted.parts.get(&object).cloned())).collect();
        changes.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        (wanted.version, changes)
    }

    /// Notes that this version is in force, and what is not.
    fn done(&mut self, version: u64) {
        let Self { told, aside, .. } = self;
        told.retain(|object, _| aside.contains_key(object));
        let mut refused: Vec<_> = self.aside.iter().map(|(o, why)| ((**o).clone(), why.clone())).collect();
        refused.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let (flows, groups) = self.plan.sizes();
        let mut status = self.shared.status();
        (status.pending, status.flows, status.groups, status.refused) = (0, flows, groups, refused);
        drop(status);
        self.shared.progress.send_modify(|p| (p.done, p.in_step, p.behind) = (p.done.max(version), true, None));
    }

    /// Brings changes into force, but those that the switch refuses.
    async fn bring(
        &mut self,
        client: &mut FlowServiceClient<Channel>,
        others: &Others,
        mut changes: Vec<Change>,
    ) -> Result<(), SwitchError> {
        for (object, _) in &changes {
            self.aside.remove(object);
        }
        let mut refusals = 0;
        loop {
            let before = self.parts_of(&changes);
            let bundle = Bundle::new(&self.shared.config.bridge, self.round, self.plan.change(&changes));
            let said = match self.send(client, others, &bundle, Vec::new()).await {
                Ok(_) => return Ok(()),
                // Whether it was done is not known: the next thing is to send everything.
                Err(Failure::Switch(error)) => return Err(error),
                Err(Failure::Refused(said)) => said,
            };
            self.plan.change(&before);
            if others.take() {
                // A group that is missing may be somebody else's doing.
                return self.whole(client, others, Mode::Begin).await;
            }
            refusals += 1;
            let at_fault = bundle.at_fault(&said).filter(|_| refusals <= FEW);
            let bad = match at_fault.filter(|(object, _)| changes.iter().any(|(o, _)| o == *object)) {
                Some((object, why)) => vec![(Arc::clone(object), why)],
                None => self.find_bad(client, others, &changes).await?,
            };
            if bad.is_empty() {
                return Err(SwitchError::Refused { code: Code::InvalidArgument, why: said });
            }
            for (object, why) in bad {
                self.put_aside(object, why);
            }
            changes.retain(|(object, _)| !self.aside.contains_key(object));
        }
    }

    fn parts_of(&self, changes: &[Change]) -> Vec<Change> {
        changes.iter().map(|(object, _)| (Arc::clone(object), self.plan.part(object).cloned())).collect()
    }

    fn put_aside(&mut self, object: Arc<Object>, why: String) {
        if self.told.get(&object) != Some(&why) {
            warn!(object = %name(&object), error = %why, "the switch refuses this; it is left out");
            self.told.insert(Arc::clone(&object), why.clone());
        }
        self.aside.insert(object, why);
    }

    /// The changes that the switch refuses each for itself, found by halves, and what it says of them.
    async fn find_bad(
        &mut self,
        client: &mut FlowServiceClient<Channel>,
        others: &Others,
        changes: &[Change],
    ) -> Result<Vec<(Arc<Object>, String)>, SwitchError> {
        let mut bad = Vec::new();
        let mut open = vec![changes];
        while let Some(some) = open.pop() {
            let before = self.parts_of(some);
            let bundle = Bundle::new(&self.shared.config.bridge, self.round, self.plan.change(some)).dry_run();
            self.plan.change(&before);
            match (self.send(client, others, &bundle, Vec::new()).await, some) {
                (Ok(_), _) => {}
                (Err(Failure::Switch(error)), _) => return Err(error),
                (Err(Failure::Refused(said)), [(object, _)]) => {
                    let why = bundle.at_fault(&said).map_or(said.clone(), |(_, why)| why);
                    bad.push((Arc::clone(object), why));
                }
                (Err(Failure::Refused(_)), _) => {
                    let (first, second) = some.split_at(some.len() / 2);
                    open.extend([second, first]);
                }
            }
        }
        Ok(bad)
    }

    /// Sends everything, in the place of all that the switch has of ours. To check, nothing is sent if nothing would change.
    async fn whole(
        &mut self,
        client: &mut FlowServiceClient<Channel>,
        others: &Others,
        mode: Mode,
    ) -> Result<(), SwitchError> {
        let (version, mut fallbacks) = match mode {
            Mode::Begin => self.plan_all(),
            // No other version than before.
            Mode::Check => (0, Vec::new()),
        };
        let mut refusals = 0;
        loop {
            self.verified = None;
            let generation = self.switch.status().await?.model_generation;
            let groups = Groups::of(&self.switch, &self.shared.config.bridge).await?;
            let (difference, leaving) = compare(groups, self.plan.all()).await?;
            let is_same = difference.groups.is_empty() && leaving.is_empty();
            self.shared.status().comparisons += 1;
            let bundle = Bundle::new(&self.shared.config.bridge, self.round, difference).replacing();
            if mode == Mode::Check && is_same {
                let would = self.send(client, others, &bundle.clone().dry_run(), Vec::new()).await;
                if would.is_ok_and(|reply| reply.added + reply.modified + reply.deleted == 0) {
                    self.verified = Some(generation);
                    return Ok(());
                }
            }
            let said = match self.send(client, others, &bundle, leaving).await {
                Ok(reply) => {
                    self.tell(&reply, mode);
                    break;
                }
                Err(Failure::Switch(error)) => return Err(error),
                Err(Failure::Refused(said)) => said,
            };
            refusals += 1;
            // At first it may be that somebody deleted a group meanwhile.
            if refusals > 1 {
                let at_fault = bundle.at_fault(&said).filter(|_| refusals <= 1 + FEW);
                self.leave_out(client, others, (at_fault, &said), &mut fallbacks).await?;
            }
        }
        self.done(version);
        Ok(())
    }

    /// Puts aside what the switch refuses; what the objects had before, if that is known, takes its place.
    async fn leave_out(
        &mut self,
        client: &mut FlowServiceClient<Channel>,
        others: &Others,
        (at_fault, said): (Option<(&Arc<Object>, String)>, &str),
        fallbacks: &mut Vec<Change>,
    ) -> Result<(), SwitchError> {
        let bad = match at_fault {
            Some((object, why)) => vec![(Arc::clone(object), why)],
            None => {
                let plan = std::mem::take(&mut self.plan);
                let all: Vec<Change> = plan.objects().map(|o| (Arc::clone(o), plan.part(o).cloned())).collect();
                let bad = self.find_bad(client, others, &all).await;
                self.plan = plan;
                let bad = bad?;
                if bad.is_empty() {
                    return Err(SwitchError::Refused { code: Code::InvalidArgument, why: said.to_owned() });
                }
                bad
            }
        };
        for (object, why) in bad {
            let before = fallbacks.iter().position(|(o, _)| *o == object).map(|at| fallbacks.swap_remove(at));
            self.plan.change(&[before.unwrap_or((Arc::clone(&object), None))]);
            self.put_aside(object, why);
        }
        Ok(())
    }

    /// Has the plan hold all that is wanted; of which version that is, and the parts that had been in force until then.
    fn plan_all(&mut self) -> (u64, Vec<Change>) {
        self.aside.clear();
        let mut wanted = self.shared.wanted();
        wanted.changed.clear();
        let gone = self.plan.objects().filter(|object| !wanted.parts.contains_key(*object));
        let mut changes: Vec<Change> = gone.map(|object| (Arc::clone(object), None)).collect();
        let is_new = |(object, part): &(&Arc<Object>, &Arc<Part>)| {
            self.plan.part(object).is_none_or(|there| !Arc::ptr_eq(there, part))
        };
        let new = wanted.parts.iter().filter(is_new);
        changes.extend(new.map(|(object, part)| (Arc::clone(object), Some(Arc::clone(part)))));
        let version = wanted.version;
        drop(wanted);
        let fallbacks = self.parts_of(&changes).into_iter().filter(|(_, part)| part.is_some()).collect();
        self.plan.change(&changes);
        (version, fallbacks)
    }

    /// Sends a bundle, with groups to delete of which only the number is known.
    async fn send(
        &mut self,
        client: &mut FlowServiceClient<Channel>,
        others: &Others,
        bundle: &Bundle,
        groups_leaving: Vec<u32>,
    ) -> Result<ApplyBundleReply, Failure> {
        if bundle.is_nothing() && groups_leaving.is_empty() {
            return Ok(ApplyBundleReply::default());
        }
        let begin = Instant::now();
        let messages = tokio_stream::iter(bundle.messages(groups_leaving));
        let call = async { client.apply_bundle(messages).await.map(tonic::Response::into_inner) };
        let reply = match within(self.switch.socket(), BUNDLE, call).await {
            Ok(reply) => reply,
            Err(SwitchError::Refused { code: Code::InvalidArgument, why }) => return Err(Failure::Refused(why)),
            Err(error) => return Err(Failure::Switch(error)),
        };
        if bundle.is_dry_run() {
            return Ok(reply);
        }
        others.own(reply.model_generation);
        // Nobody else has changed anything in between.
        self.verified = self.verified.map(|g| g + 1).filter(|g| *g == reply.model_generation);
        let took = begin.elapsed();
        debug!(changes = bundle.len(), ?took, generation = reply.model_generation, "bundle");
        for warning in &reply.warnings {
            debug!(%warning, "the switch made something right");
        }
        let mut status = self.shared.status();
        status.bundles += 1;
        status.changes += reply.added + reply.modified + reply.deleted;
        status.changes += reply.others_added + reply.others_modified + reply.others_deleted;
        status.bundle_time += took;
        status.last_bundle_time = took;
        drop(status);
        Ok(reply)
    }

    /// Says what bringing the switch into step came to.
    fn tell(&self, reply: &ApplyBundleReply, mode: Mode) {
        let &ApplyBundleReply {
            added,
            modified,
            deleted,
            unchanged,
            others_added,
            others_modified,
            others_deleted,
            ..
        } = reply;
        let groups = others_added + others_modified + others_deleted;
        if mode == Mode::Begin {
            info!(added, modified, deleted, unchanged, groups, "the switch is in step");
        } else if added + modified + deleted + groups > 0 {
            self.shared.status().mended += 1;
            warn!(
                added,
                modified, deleted, groups, "somebody else had changed our flows or groups; they are put right"
            );
        }
    }
}

/// Takes out of what is to be sent the groups that are there, and says which of ours are to go.
async fn compare(groups: Groups, mut all: Difference) -> Result<(Difference, Vec<u32>), SwitchError> {
    let work = move || {
        let leaving = groups.compare(&mut all);
        (all, leaving)
    };
    let failed = |e: tokio::task::JoinError| SwitchError::Refused { code: Code::Internal, why: e.to_string() };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}
