//! Events.

use super::Api;
use super::fdb::mac_of;
use super::flow::flow;
use super::watch::Watched;
use crate::Datapath;
use crate::event::EventKind;
use crate::mac_table::{MacChange, MacEntry};
use sluice_flows::PortNo;
use sluice_flows::bridge::BridgeId;
use sluice_flows::text::Names;
use sluice_proto::v1::event::Kind;
use sluice_proto::v1::event_service_server::EventService;
use sluice_proto::v1::{
    AttachmentsChanged, BridgeAdded, BridgeRemoved, Event, EventsLost, FlowRemoved, FlowsChanged, MacAged, MacLearned,
    PortAdded, PortChanged, PortRemoved, WatchEventsRequest,
};
use std::collections::HashMap;
use std::time::UNIX_EPOCH;
use tonic::{Request, Response, Status};

/// Events that wait for a slow reader.
const DEPTH: usize = 4096;

#[tonic::async_trait]
impl EventService for Api {
    type WatchEventsStream = Watched<Event>;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let only = request.into_inner().bridge;
        let events = self.datapath.events(DEPTH);
        let mut teller = Teller::new(self.datapath.clone());
        let stream = self.watch(events, move |event| {
            let event = teller.tell(event);
            (only.is_empty() || event.bridge.is_empty() || event.bridge == only).then_some(event)
        })?;
        Ok(Response::new(stream))
    }
}

/// Puts events into words. It remembers the names of bridges, because an event may arrive after its bridge has gone.
struct Teller {
    datapath: Datapath,
    bridges: HashMap<BridgeId, String>,
}

impl Teller {
    fn new(datapath: Datapath) -> Self {
        let bridges = datapath.bridges().into_iter().map(|b| (b.id, b.name.to_string())).collect();
        Self { datapath, bridges }
    }

    fn tell(&mut self, event: crate::event::Event) -> Event {
        if let (Some(id), EventKind::BridgeAdded { name }) = (event.bridge, &event.kind) {
            self.bridges.insert(id, name.to_string());
        }
        let bridge = event.bridge.and_then(|id| self.bridges.get(&id)).cloned().unwrap_or_default();
        let since = event.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Event {
            sequence: event.sequence,
            time_unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            bridge,
            kind: Some(self.kind(event.kind)),
        }
    }

    fn kind(&self, kind: EventKind) -> Kind {
        let number = |no: PortNo| u32::from(no.0);
        match kind {
            EventKind::BridgeAdded { .. } => Kind::BridgeAdded(BridgeAdded {}),
            EventKind::BridgeRemoved { .. } => Kind::BridgeRemoved(BridgeRemoved {}),
            EventKind::PortAdded { name, no, .. } => {
                Kind::PortAdded(PortAdded { port: name.to_string(), number: number(no) })
            }
            EventKind::PortRemoved { name, no, .. } => {
                Kind::PortRemoved(PortRemoved { port: name.to_string(), number: number(no) })
            }
            EventKind::PortChanged { name, no, up, gone } => {
                Kind::PortChanged(PortChanged { port: name.to_string(), number: number(no), up, gone })
            }
            EventKind::FlowsChanged { changes, generation } => Kind::FlowsChanged(FlowsChanged {
                added: changes.added,
                modified: changes.modified,
                deleted: changes.deleted,
                model_generation: generation,
            }),
            EventKind::FlowRemoved { rule, reason } => Kind::FlowRemoved(FlowRemoved {
                flow: Some(flow(&rule, self.datapath.clock().now(), &Names::new())),
                reason: reason.name().to_owned(),
            }),
            EventKind::MacLearned { entry, change } => Kind::MacLearned(MacLearned {
                mac: mac_of(entry.mac),
                vlan: entry.vlan.get().into(),
                port: self.port(&entry),
                moved: matches!(change, MacChange::Moved { .. }),
            }),
            EventKind::MacAged { entry } => Kind::MacAged(MacAged {
                mac: mac_of(entry.mac),
                vlan: entry.vlan.get().into(),
                port: self.port(&entry),
            }),
            EventKind::AttachmentsChanged { network } => {
                Kind::AttachmentsChanged(AttachmentsChanged { network: network.to_string() })
            }
            EventKind::Lost { count } => Kind::Lost(EventsLost { count }),
        }
    }

    /// Name of the port that an address is behind; empty when the port has gone.
    fn port(&self, entry: &MacEntry) -> String {
        let model = self.datapath.model();
        let port = model.bridge(entry.bridge).and_then(|b| b.ports.get(&entry.port));
        port.map_or_else(String::new, |p| p.name.to_string())
    }
}
