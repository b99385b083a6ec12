//! The way to the switch: made whenever there is a switch, watched, and given up as soon as it breaks.

use super::channel::connect;
use super::events::{Event, Teller};
use super::switch::{ASK, within};
use super::task::Task;
use super::{Shared, Switch, SwitchError};
use sluice_proto::v1::event::Kind;
use sluice_proto::v1::event_service_client::EventServiceClient;
use sluice_proto::v1::{self as proto, WatchEventsRequest};
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tonic::Streaming;
use tonic::transport::Channel;
use tracing::{info, warn};

/// Between attempts to connect, at first.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Between attempts to connect, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long it is tried often: a switch that is started again is back by then.
const TRY_OFTEN: Duration = Duration::from_secs(2);
/// Generations that are remembered.
const REMEMBERED: usize = 1_000;

/// Makes connections, one after the other.
pub(super) struct Connections {
    shared: Arc<Shared>,
    channel: watch::Sender<Option<Channel>>,
    teller: Teller,
    switch: Switch,
    task: Task,
    /// When the switch of the last connection was started, at the earliest and at the latest, and its generation then.
    known: Option<((Instant, Instant), u64)>,
}

/// What others do to flows, as far as events tell.
#[derive(Debug, Default)]
pub(super) struct Others {
    changes: Mutex<Changes>,
    /// Raised when something may have been done to our flows.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Changes {
    /// Generations of the switch's model by which flows were changed or deleted.
    seen: VecDeque<u64>,
    /// Those that our own bundles made.
    own: HashSet<u64>,
    /// Events were lost, so that anything may have happened.
    unknown: bool,
}

impl Others {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, generation: u64) {
        let mut changes = self.changes();
        if changes.seen.len() == REMEMBERED {
            changes.seen.pop_front();
            changes.unknown = true;
        }
        changes.seen.push_back(generation);
        drop(changes);
        self.changed.notify_one();
    }

    fn lost(&self) {
        self.changes().unknown = true;
        self.changed.notify_one();
    }

    /// Notes that one of our bundles has made this generation.
    pub(super) fn own(&self, generation: u64) {
        let mut changes = self.changes();
        if changes.own.len() >= REMEMBERED {
            changes.own.retain(|g| *g + (REMEMBERED as u64) / 2 > generation);
        }
        changes.own.insert(generation);
    }

    /// Whether somebody else may have changed or deleted flows since this was asked last.
    pub(super) fn take(&self) -> bool {
        let mut changes = self.changes();
        let Changes { seen, own, unknown } = &mut *changes;
        let is_foreign = seen.drain(..).any(|generation| !own.contains(&generation));
        std::mem::take(unknown) || is_foreign
    }
}

impl Connections {
    pub(super) fn new(
        shared: Arc<Shared>,
        channel: watch::Sender<Option<Channel>>,
        teller: Teller,
        switch: Switch,
        round: u64,
    ) -> Self {
        let task = Task::new(Arc::clone(&shared), switch.clone(), round);
        Self { shared, channel, teller, switch, task, known: None }
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let (channel, events) = self.reach().await;
            let new_switch = self.is_new().await;
            {
                let mut status = self.shared.status();
                status.connected = true;
                status.connections += 1;
            }
            self.shared.progress.send_modify(|p| p.behind = None);
            info!(socket = %self.switch.socket().display(), new_switch, "connected to the switch");
            self.teller.tell(Event::Connected { new_switch });
            let others = Others::default();
            let error = tokio::select! {
                error = watch_events(events, &self.switch, &self.teller, &others) => error,
                never = self.task.run(channel, &others) => match never {},
            };
            warn!(error = %error, "the switch is lost");
            self.lose(error);
            self.teller.tell(Event::Lost);
        }
    }

    /// Notes that there is no switch.
    fn lose(&mut self, error: SwitchError) {
        self.channel.send_replace(None);
        let mut status = self.shared.status();
        status.connected = false;
        status.in_step_since = None;
        status.last_error = Some((SystemTime::now(), error.to_string()));
        drop(status);
        self.shared.progress.send_modify(|p| (p.in_step, p.behind) = (false, Some(error)));
    }

    /// Waits for a switch that answers, and for the stream of its events.
    async fn reach(&mut self) -> (Channel, Streaming<proto::Event>) {
        let (begin, mut pause, mut said) = (Instant::now(), FIRST_PAUSE, String::new());
        loop {
            match self.attempt().await {
                Ok(reached) => return reached,
                Err(error) => {
                    let text = error.to_string();
                    if text != said {
                        warn!(error = %text, "no switch");
                        said = text;
                    }
                    self.lose(error);
                }
            }
            sleep(pause).await;
            if begin.elapsed() > TRY_OFTEN {
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    async fn attempt(&self) -> Result<(Channel, Streaming<proto::Event>), SwitchError> {
        let channel = connect(self.switch.socket()).await?;
        let mut client = EventServiceClient::new(channel.clone());
        let watch = async { client.watch_events(WatchEventsRequest::default()).await.map(tonic::Response::into_inner) };
        let events = within(self.switch.socket(), ASK, watch).await?;
        self.channel.send_replace(Some(channel.clone()));
        Ok((channel, events))
    }

    /// Whether the switch is another process than that of the connection before.
    async fn is_new(&mut self) -> bool {
        let asked = Instant::now();
        // A switch that does not say is soon lost again.
        let Ok(status) = self.switch.status().await else { return true };
        let before = |instant: Instant, ms| instant.checked_sub(Duration::from_millis(ms));
        let earliest = before(asked, status.uptime_ms.saturating_add(1));
        let latest = before(Instant::now(), status.uptime_ms);
        let now = earliest.zip(latest).map(|started| (started, status.model_generation));
        match (std::mem::replace(&mut self.known, now), now) {
            (Some(((_, latest), generation)), Some(((earliest, _), then))) => earliest > latest || then < generation,
            _ => true,
        }
    }
}

/// Reads events until there are no more; why there are none.
async fn watch_events(
    mut events: Streaming<proto::Event>,
    switch: &Switch,
    teller: &Teller,
    others: &Others,
) -> SwitchError {
    loop {
        let event = match events.message().await {
            Ok(Some(event)) => event,
            Ok(None) => {
                let why = "it has ended".to_owned();
                return SwitchError::Away { socket: switch.socket().to_owned(), why };
            }
            Err(status) => return SwitchError::of(switch.socket(), &status),
        };
        match event.kind {
            Some(Kind::AttachmentsChanged(_)) => teller.tell(Event::AttachmentsChanged),
            Some(Kind::FlowsChanged(change)) if change.modified + change.deleted > 0 => {
                others.saw(change.model_generation);
            }
            Some(Kind::Lost(_)) => {
                others.lost();
                teller.tell(Event::AttachmentsChanged);
            }
            _ => {}
        }
    }
}
