//! The groups of the switch beside those that it is to have.
//!
//! Texts are compared as the switch prints them: what is wanted is made of the same model here, so that the same group reads the same.

use super::OWNERS;
use super::bundle::group_text;
use super::plan::{Difference, Item, What};
use super::switch::{LONGEST_MESSAGE, within};
use super::{Switch, SwitchError};
use crate::flow::Group;
use foldhash::fast::RandomState;
use sluice_flows::Owner;
use sluice_flows::action::GroupId;
use sluice_flows::bridge::{Bridge, BridgeId};
use sluice_flows::group::GroupMod;
use sluice_flows::rule::Millis;
use sluice_flows::text::{GroupCommand, Names, parse_group_mod, show_group};
use sluice_proto::v1::ListGroupsRequest;
use sluice_proto::v1::group_service_client::GroupServiceClient;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::Duration;

/// How long a list may take.
const LIST: Duration = Duration::from_secs(60);

/// The groups of a bridge: hashes of their texts and owners, by number.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The hash, and whether its owner is one of ours.
    by_id: HashMap<u32, (u64, bool), RandomState>,
    hash: RandomState,
}

impl Groups {
    /// Asks the switch.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub(super) async fn of(switch: &Switch, bridge: &str) -> Result<Self, SwitchError> {
        let mut client = GroupServiceClient::new(switch.channel()?).max_decoding_message_size(LONGEST_MESSAGE);
        let request = ListGroupsRequest { bridge: bridge.to_owned(), ..ListGroupsRequest::default() };
        let list = async {
            let mut groups = Self::default();
            let mut stream = client.list_groups(request).await?.into_inner();
            while let Some(part) = stream.message().await? {
                for group in part.groups {
                    let is_ours = OWNERS.iter().any(|kind| group.owner.starts_with(kind));
                    groups.by_id.insert(group.id, (groups.hash.hash_one((&*group.group, &*group.owner)), is_ours));
                }
            }
            Ok(groups)
        };
        within(switch.socket(), LIST, list).await
    }

    /// Takes out of `difference` the groups that are there as it has them; the numbers of ours that it has not.
    pub(super) fn compare(&self, difference: &mut Difference) -> Vec<u32> {
        let mut bridge = Bridge::new(BridgeId(0), "");
        let mut left: HashMap<_, _, RandomState> = self.by_id.iter().filter(|(_, (_, ours))| *ours).collect();
        difference.groups.retain(|item| {
            let Some(group) = group_of(item) else { return false };
            left.remove(&group.id);
            let there = self.by_id.get(&group.id).map(|(hash, _)| *hash);
            there.is_none() || there != self.of_wanted(&mut bridge, group)
        });
        let mut left: Vec<u32> = left.into_keys().copied().collect();
        left.sort_unstable();
        left
    }

    /// The hash of a group as the switch will print it; none if it will refuse it.
    fn of_wanted(&self, bridge: &mut Bridge, group: &Group) -> Option<u64> {
        let names = Names::new();
        let mut change = parse_group_mod(&group_text(group), GroupCommand::AddOrModify, &names).ok()?;
        if let GroupMod::Add(spec) | GroupMod::Modify { spec, .. } = &mut change
            && spec.owner == Owner::user()
        {
            spec.owner = Owner::new(&group.owner);
        }
        bridge.make(change.into(), Millis(0)).ok()?;
        let made = bridge.groups.remove(&GroupId(group.id))?;
        let text = show_group(&made, &names).to_string();
        Some(self.hash.hash_one((text.as_str(), made.owner.text())))
    }
}

fn group_of(item: &Item) -> Option<&Group> {
    match item.what() {
        Some(What::Group(group)) => Some(group),
        _ => None,
    }
}
