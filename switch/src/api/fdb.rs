//! Learned MAC addresses.

use super::{Api, Parts, error, find_bridge, mac_text, only};
use crate::Datapath;
use crate::mac_table::{GroupMember, MacEntry};
use sluice_flows::PortNo;
use sluice_flows::bridge::Bridge;
use sluice_flows::rule::Millis;
use sluice_proto::v1::fdb_service_server::FdbService;
use sluice_proto::v1::{
    FdbEntry, FlushFdbReply, FlushFdbRequest, ListFdbReply, ListFdbRequest, ListMdbReply, ListMdbRequest, MdbEntry,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Entries in one part of a list.
const CHUNK: usize = 1000;

#[tonic::async_trait]
impl FdbService for Api {
    type ListFdbStream = Parts<ListFdbReply>;

    async fn list_fdb(&self, request: Request<ListFdbRequest>) -> Result<Response<Self::ListFdbStream>, Status> {
        let bridges = self.bridges(request.into_inner().bridge).await?;
        Ok(Response::new(self.parts(move |datapath, send| {
            let now = datapath.clock().now();
            for bridge in &bridges {
                // A bridge that was removed meanwhile has none.
                for chunk in datapath.fdb(&bridge.name).unwrap_or_default().chunks(CHUNK) {
                    if !send(ListFdbReply { entries: chunk.iter().map(|e| entry(bridge, e, now)).collect() }) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })))
    }

    type ListMdbStream = Parts<ListMdbReply>;

    async fn list_mdb(&self, request: Request<ListMdbRequest>) -> Result<Response<Self::ListMdbStream>, Status> {
        let bridges = self.bridges(request.into_inner().bridge).await?;
        Ok(Response::new(self.parts(move |datapath, send| {
            let now = datapath.clock().now();
            for bridge in &bridges {
                for chunk in datapath.group_members(&bridge.name).unwrap_or_default().chunks(CHUNK) {
                    if !send(ListMdbReply { entries: chunk.iter().map(|m| member(bridge, m, now)).collect() }) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })))
    }

    async fn flush_fdb(&self, request: Request<FlushFdbRequest>) -> Result<Response<FlushFdbReply>, Status> {
        let asked = request.into_inner().bridge;
        let work = move |datapath: &Datapath| {
            let bridge = find_bridge(datapath, &asked)?;
            let flushed = datapath.flush_fdb(&bridge.name).map_err(error::status)?;
            Ok(FlushFdbReply { flushed: flushed as u64 })
        };
        self.blocking(work).await.map(Response::new)
    }
}

impl Api {
    /// The bridge named, or all.
    async fn bridges(&self, asked: String) -> Result<Vec<Arc<Bridge>>, Status> {
        self.blocking(move |datapath| match only(&asked) {
            Some(name) => Ok(vec![datapath.bridge(name).map_err(error::status)?]),
            None => Ok(datapath.bridges()),
        })
        .await
    }
}

fn member(bridge: &Bridge, member: &GroupMember, now: Millis) -> MdbEntry {
    MdbEntry {
        bridge: bridge.name.to_string(),
        vlan: member.vlan.get().into(),
        group: member.group.map_or_else(String::new, |group| group.to_string()),
        port_number: member.port.0.into(),
        port: name_of(bridge, member.port),
        age_ms: now.since(member.seen),
    }
}

/// A port's name; empty when it is gone.
fn name_of(bridge: &Bridge, port: PortNo) -> String {
    bridge.ports.get(&port).map_or_else(String::new, |port| port.name.to_string())
}

fn entry(bridge: &Bridge, entry: &MacEntry, now: Millis) -> FdbEntry {
    FdbEntry {
        bridge: bridge.name.to_string(),
        port_number: entry.port.0.into(),
        port: name_of(bridge, entry.port),
        vlan: entry.vlan.get().into(),
        mac: mac_of(entry.mac),
        age_ms: now.since(entry.seen),
    }
}

/// An address in the low 48 bits, as text.
pub(super) fn mac_of(address: u64) -> String {
    let [_, _, mac @ ..] = address.to_be_bytes();
    mac_text(mac)
}
