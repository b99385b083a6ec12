//! What one switch tells: new connections as they come, and once a second what was dropped since.

use super::record::{Record, rules};
use super::{EVERY, Told};
use crate::client::{Client, Waited};
use crate::cmd::policy::owner;
use crate::failure::Failure;
use sluice_proto::v1::connection_event::Kind;
use sluice_proto::v1::{ConnectionEvent, Drop, Flow, ListDropsRequest, WatchConnectionsRequest};
use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often the rules are read again at most, for numbers that are not known.
const RULES_EVERY: Duration = Duration::from_secs(2);

/// Tells until nobody listens.
///
/// # Errors
/// The switch does not answer.
pub(super) fn follow(client: &Client, node: Option<&str>, sender: &SyncSender<Told>) -> Result<(), Failure> {
    let mut drops = Drops::default();
    drops.since(client)?;
    let mut rules = Rules { owners: HashMap::new(), read: None };
    let request = WatchConnectionsRequest { filter: String::new() };
    let mut stream = client.call(client.connections().watch_connections(request))?;
    let mut to = Way { sender, lost: 0 };
    let mut due = Instant::now() + EVERY;
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            for (drop, packets) in drops.since(client)? {
                if !to.tell(Record::dropped(&drop, packets, now(), node)) {
                    return Ok(());
                }
            }
            due = Instant::now() + EVERY;
            if !to.is_open() {
                return Ok(());
            }
            continue;
        }
        match client.next_within(&mut stream, left)? {
            Waited::Late => {}
            Waited::End => return Err(Failure::new("the switch tells no more of its connections")),
            Waited::Message(event) => {
                if let Some(Kind::Lost(lost)) = &event.kind {
                    to.lost = to.lost.saturating_add(lost.count);
                } else if !to.tell(accepted(&event, &mut rules, client, node)?) {
                    return Ok(());
                }
            }
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The way to who tells it. It never waits.
struct Way<'a> {
    sender: &'a SyncSender<Told>,
    /// Records that there was no room for.
    lost: u64,
}

impl Way<'_> {
    /// Whether somebody listens.
    fn tell(&mut self, record: Option<Record>) -> bool {
        let Some(record) = record else { return true };
        match self.sender.try_send(Told::Record(record)) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lost = self.lost.saturating_add(1);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Tells what was lost, once there is room. Whether somebody listens.
    fn is_open(&mut self) -> bool {
        match self.sender.try_send(Told::Lost(self.lost)) {
            Ok(()) => self.lost = 0,
            Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => return false,
        }
        true
    }
}

/// A new connection that some rule accepted.
fn accepted(
    event: &ConnectionEvent,
    known: &mut Rules,
    client: &Client,
    node: Option<&str>,
) -> Result<Option<Record>, Failure> {
    let (Some(Kind::Added(_)), Some(connection)) = (&event.kind, &event.connection) else { return Ok(None) };
    let mut by = Vec::new();
    for number in rules(&connection.label).into_iter().flatten() {
        by.push(known.owner(number, client)?);
    }
    if by.is_empty() {
        return Ok(None);
    }
    Ok(Record::accepted(connection, by, event.time_unix_ns, node))
}

/// The rules by the numbers that connections keep of them.
struct Rules {
    owners: HashMap<u32, String>,
    read: Option<Instant>,
}

impl Rules {
    fn owner(&mut self, number: u32, client: &Client) -> Result<String, Failure> {
        if !self.owners.contains_key(&number) && self.read.is_none_or(|read| read.elapsed() > RULES_EVERY) {
            self.read(client)?;
        }
        Ok(self.owners.get(&number).cloned().unwrap_or_else(|| format!("rule {number:#x}")))
    }

    fn read(&mut self, client: &Client) -> Result<(), Failure> {
        self.read = Some(Instant::now());
        self.owners.clear();
        let of = |flow: Flow| Some((number(&flow.actions)?, flow.owner));
        self.owners.extend(owner::flows(client, false)?.into_iter().filter_map(of));
        Ok(())
    }
}

/// The number that a flow of a rule loads for connections to keep.
fn number(actions: &str) -> Option<u32> {
    actions.split(',').find_map(|action| {
        let (value, register) = action.strip_prefix("load:")?.split_once("->")?;
        let is_rule = ["NXM_NX_REG5[]", "NXM_NX_REG6[]"].contains(&register);
        let value =
            value.strip_prefix("0x").map_or_else(|| value.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok());
        value.filter(|_| is_rule)
    })
}

/// What has been dropped by each rule behind each port.
#[derive(Default)]
struct Drops {
    counts: HashMap<(String, String, String, String), u64>,
}

impl Drops {
    /// What policies have dropped since it was asked last, with how many packets.
    fn since(&mut self, client: &Client) -> Result<Vec<(Drop, u64)>, Failure> {
        let parts = client.collect(client.stats().list_drops(ListDropsRequest::default()))?;
        let mut all = Vec::new();
        let mut counts = HashMap::new();
        for drop in parts.into_iter().flat_map(|part| part.drops) {
            if owner::policies(&drop.owner).is_empty() {
                continue;
            }
            let key = (drop.bridge.clone(), drop.port.clone(), drop.owner.clone(), drop.rule.clone());
            let before = self.counts.get(&key).copied().unwrap_or_default();
            // A count that is smaller has begun anew.
            let more = drop.packets.checked_sub(before).unwrap_or(drop.packets);
            counts.insert(key, drop.packets);
            if more > 0 {
                all.push((drop, more));
            }
        }
        self.counts = counts;
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_rule_is_what_its_flow_loads() {
        assert_eq!(number("load:0x1f->NXM_NX_REG5[],goto_table:26"), Some(0x1f));
        assert_eq!(number("load:0x80000001->NXM_NX_REG6[],goto_table:40"), Some(0x8000_0001));
        assert_eq!(number("load:0x1->NXM_NX_REG0[9],goto_table:40"), None);
        assert_eq!(number("conjunction(5,1/2)"), None);
    }
}
