//! Clients that keep their endpoint: a learned flow for each, by the group's number and the client's address.
//!
//! Where a client has a learned flow, it says the endpoint's number, and the endpoint's own flow makes the connection. A number that is
//! nobody's any more goes on to the choice, which learns anew. So an endpoint that goes leaves nothing behind that would have to
//! be deleted at once, and one that comes back does not find others' clients. Groups choose by the client's address alone: whoever
//! lost what was learned gets the same endpoint.

use super::Stage;
use super::services::{family, select_text, source_field};
use super::text::{Family, Flows, dnat};
use crate::facts::{Endpoint, Service, ServicePort};
use crate::flow::{LEARNED, Part};
use std::collections::BTreeMap;

/// Matches the learned flows of the groups of a Service: delete them, with cookie [`LEARNED`], when it goes or loses its
/// affinity. One for each group of its part; none if it has no affinity.
pub fn learned_of<'a>(service: &'a Service, part: &'a Part) -> impl Iterator<Item = String> + 'a {
    let groups = part.groups.iter().filter(|_| service.affinity_s.is_some());
    groups.map(|group| format!("table={},reg7={:#x}", Stage::Affinity.table(), group.id))
}

/// What a frontend does: looks whether the client has an endpoint, and goes there if so.
pub(super) fn enter(id: u32) -> String {
    format!(
        "load:{id:#x}->NXM_NX_REG7[],load:0->NXM_NX_REG3[],resubmit(,{}),resubmit(,{})",
        Stage::Affinity.table(),
        Stage::Endpoint.table()
    )
}

/// The choice, and a flow for each endpoint: it makes the connection, and the learned flow for the client's next ones. That is not
/// the buckets' to do: their actions are action sets, and `learn` has no place in those.
pub(super) fn add(flows: &mut Flows, port: &ServicePort, id: u32, ends: &BTreeMap<u32, Endpoint>, seconds: u16) {
    let ip = family(port).ip();
    let (ether_type, source) = match family(port) {
        Family::V4 => ("0x800", "NXM_OF_IP_SRC[]"),
        Family::V6 => ("0x86dd", "NXM_NX_IPV6_SRC[]"),
    };
    let learn = format!(
        "learn(table={},idle_timeout={seconds},cookie={LEARNED:#x},priority=200,eth_type={ether_type},NXM_NX_REG7[],\
         {source},load:NXM_NX_REG3[]->NXM_NX_REG3[])",
        Stage::Affinity.table()
    );
    flows.add(Stage::Select, 200, format!("{ip},reg7={id:#x}"), format!("group:{id}"));
    for (number, endpoint) in ends {
        let matching = format!("{ip},reg3={number:#x},reg7={id:#x}");
        flows.add(Stage::Endpoint, 200, matching, format!("{learn},{}", dnat(*endpoint)));
    }
}

pub(super) fn group_text(port: &ServicePort, id: u32, ends: &BTreeMap<u32, Endpoint>) -> String {
    let to = Stage::Endpoint.table();
    let bucket = |number: &u32| (*number, format!("load:{number:#x}->NXM_NX_REG3[],resubmit(,{to})"));
    select_text(id, source_field(port), ends.keys().map(bucket))
}
