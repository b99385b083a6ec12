//! Groups: lists with counters. Bundles change them.

use super::{Api, Parts, find_bridge};
use crate::Datapath;
use sluice_flows::action::GroupId;
use sluice_flows::group::{Bucket, Group, GroupKind};
use sluice_flows::reference::Reference;
use sluice_flows::rule::Millis;
use sluice_flows::table::Tables;
use sluice_flows::text::{Names, show_actions, show_group};
use sluice_proto::v1::group_service_server::GroupService;
use sluice_proto::v1::{self as proto, ListGroupsReply, ListGroupsRequest};
use tonic::{Request, Response, Status};

/// Groups in one part of a list.
const CHUNK: usize = 100;

#[tonic::async_trait]
impl GroupService for Api {
    type ListGroupsStream = Parts<ListGroupsReply>;

    async fn list_groups(
        &self,
        request: Request<ListGroupsRequest>,
    ) -> Result<Response<Self::ListGroupsStream>, Status> {
        let request = request.into_inner();
        let select = move |datapath: &Datapath| {
            // Workers that do not answer in time leave counters a little behind.
            _ = datapath.sync_stats();
            let bridge = find_bridge(datapath, &request.bridge)?;
            let only = request.group.map(GroupId);
            let wanted = bridge.groups.values().filter(|group| only.is_none_or(|id| id == group.id));
            let names = if request.port_names { Names::of_bridge(&bridge) } else { Names::new() };
            Ok((wanted.cloned().collect::<Vec<_>>(), bridge.tables.clone(), names))
        };
        let (groups, tables, names) = self.blocking(select).await?;
        Ok(Response::new(self.parts(move |datapath, send| {
            for chunk in groups.chunks(CHUNK) {
                let now = datapath.clock().now();
                let groups = chunk.iter().map(|g| group(g, &tables, now, &names)).collect();
                if !send(ListGroupsReply { groups }) {
                    break;
                }
            }
            Ok(())
        })))
    }
}

fn group(group: &Group, tables: &Tables, now: Millis, names: &Names) -> proto::Group {
    let kind = match group.kind {
        GroupKind::All => "all",
        GroupKind::Select => "select",
        GroupKind::Indirect => "indirect",
        GroupKind::FastFailover => "ff",
    };
    let bucket = |bucket: &Bucket| proto::Bucket {
        id: bucket.id,
        packets: bucket.stats.packets(),
        bytes: bucket.stats.bytes(),
        weight: bucket.weight.into(),
        actions: show_actions(&bucket.actions, names).to_string(),
    };
    proto::Group {
        id: group.id.0,
        r#type: kind.to_owned(),
        group: show_group(group, names).to_string(),
        owner: group.owner.to_string(),
        ref_count: tables.references().of(Reference::Group(group.id)).count() as u64,
        packets: group.stats.packets(),
        bytes: group.stats.bytes(),
        duration_ms: now.since(group.created),
        buckets: group.buckets.iter().map(bucket).collect(),
    }
}
