//! Tracked connections.

mod label;
mod owners;
mod settings;
mod show;

use super::watch::Watched;
use super::{Api, Parts};
use crate::Datapath;
use crate::conntrack::{ConnChange, ConnEvent, ConnFilter, FragmentCounts};
use owners::Owners;
use sluice_flows::rule::Millis;
use sluice_proto::v1::connection_event::Kind;
use sluice_proto::v1::connection_service_server::ConnectionService;
use sluice_proto::v1::{
    Connection, ConnectionAdded, ConnectionCounters, ConnectionEnded, ConnectionEvent, ConnectionMarked,
    ConnectionReplied, ConnectionSettings, EventsLost, FlushConnectionsReply, FlushConnectionsRequest,
    GetConnectionSettingsRequest, GetConnectionStatsReply, GetConnectionStatsRequest, LabelConnectionsReply,
    LabelConnectionsRequest, ListConnectionsReply, ListConnectionsRequest, ProtocolStats, SetConnectionSettingsRequest,
    StateStats, WatchConnectionsRequest, ZoneStats,
};
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;
use tonic::{Request, Response, Status};

/// Connections in one part of a list.
const CHUNK: usize = 500;
/// Events that wait for a slow reader.
const DEPTH: usize = 4096;
/// Events after which a watcher looks again whose marks are whose.
const OWNERS_FOR: u32 = 1000;

#[tonic::async_trait]
impl ConnectionService for Api {
    type ListConnectionsStream = Parts<ListConnectionsReply>;
    type WatchConnectionsStream = Watched<ConnectionEvent>;

    async fn list_connections(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<Self::ListConnectionsStream>, Status> {
        let filter = filter(&request.into_inner().filter)?;
        Ok(Response::new(self.parts(move |datapath, send| {
            list(datapath, &filter, send);
            Ok(())
        })))
    }

    async fn flush_connections(
        &self,
        request: Request<FlushConnectionsRequest>,
    ) -> Result<Response<FlushConnectionsReply>, Status> {
        let FlushConnectionsRequest { filter: text, all, dry_run } = request.into_inner();
        let filter = filter(&text)?;
        if filter.is_all() != all {
            return Err(Status::invalid_argument(match all {
                true => "`all` is every connection of every zone; leave out the filter, or `all`",
                false => "a filter is missing; for every connection of every zone, say `all`",
            }));
        }
        let work = move |datapath: &Datapath| {
            let flushed =
                if dry_run { datapath.count_connections(&filter) } else { datapath.flush_connections(&filter) };
            Ok(FlushConnectionsReply { flushed })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn label_connections(
        &self,
        request: Request<LabelConnectionsRequest>,
    ) -> Result<Response<LabelConnectionsReply>, Status> {
        let asked = request.into_inner().labels;
        // All of it is read before the first is written.
        let labels = asked.iter().map(label::read).collect::<Result<Vec<_>, _>>()?;
        let work = move |datapath: &Datapath| {
            let write = |(original, value, mask): &_| datapath.label_connection(original, *value, *mask);
            let changed = labels.iter().filter(|one| write(one)).count() as u64;
            Ok(LabelConnectionsReply { changed })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn get_connection_stats(
        &self,
        request: Request<GetConnectionStatsRequest>,
    ) -> Result<Response<GetConnectionStatsReply>, Status> {
        let filter = filter(&request.into_inner().filter)?;
        self.blocking(move |datapath| Ok(stats(datapath, &filter))).await.map(Response::new)
    }

    async fn get_connection_settings(
        &self,
        _: Request<GetConnectionSettingsRequest>,
    ) -> Result<Response<ConnectionSettings>, Status> {
        self.blocking(|datapath| Ok(settings::message(&datapath.connection_settings()))).await.map(Response::new)
    }

    async fn set_connection_settings(
        &self,
        request: Request<SetConnectionSettingsRequest>,
    ) -> Result<Response<ConnectionSettings>, Status> {
        let request = request.into_inner();
        let work = move |datapath: &Datapath| {
            let settings = datapath
                .set_connection_settings(|settings| settings::change(settings, &request))
                .map_err(|error: settings::ChangeError| Status::invalid_argument(error.to_string()))?;
            Ok(settings::message(&settings))
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn watch_connections(
        &self,
        request: Request<WatchConnectionsRequest>,
    ) -> Result<Response<Self::WatchConnectionsStream>, Status> {
        let filter = filter(&request.into_inner().filter)?;
        let events = self.datapath.connection_events(DEPTH);
        let mut teller = Teller { datapath: self.datapath.clone(), owners: Owners::default(), told: 0 };
        let stream = self.watch(events, move |event| match event {
            ConnEvent::Changed { ref conn, .. } if !filter.selects(conn) => None,
            event => Some(teller.tell(event)),
        })?;
        Ok(Response::new(stream))
    }
}

/// The filter that a request's text means.
fn filter(text: &str) -> Result<ConnFilter, Status> {
    text.parse().map_err(|error: crate::conntrack::FilterError| Status::invalid_argument(error.to_string()))
}

fn list(datapath: &Datapath, filter: &ConnFilter, send: &dyn Fn(ListConnectionsReply) -> bool) {
    // Workers that do not answer in time leave counters a little behind.
    _ = datapath.sync_stats();
    let owners = Owners::of(&datapath.model());
    let now = datapath.clock().now();
    let mut connections: Vec<Connection> = Vec::new();
    let mut is_taken = true;
    datapath.connections(|conn| {
        if filter.selects(&conn) {
            connections.push(show::connection(&conn, datapath, &owners, now));
        }
        if connections.len() == CHUNK {
            is_taken = send(ListConnectionsReply { connections: std::mem::take(&mut connections) });
        }
        is_taken
    });
    if is_taken {
        send(ListConnectionsReply { connections });
    }
}

fn stats(datapath: &Datapath, filter: &ConnFilter) -> GetConnectionStatsReply {
    let mut kinds: BTreeMap<(u8, &'static str), u64> = BTreeMap::new();
    datapath.connections(|conn| {
        if filter.selects(&conn) {
            *kinds.entry((conn.original.proto, conn.state().name())).or_default() += 1;
        }
        true
    });
    let mut protocols: Vec<ProtocolStats> = Vec::new();
    for ((proto, state), connections) in kinds {
        if protocols.last().is_none_or(|last| last.proto != u32::from(proto)) {
            protocols.push(ProtocolStats { proto: proto.into(), ..ProtocolStats::default() });
        }
        if let Some(last) = protocols.last_mut() {
            last.connections += connections;
            last.states.push(StateStats { state: state.to_owned(), connections });
        }
    }
    let zones = datapath.connection_zones().into_iter().map(|zone| ZoneStats {
        zone: zone.zone.into(),
        connections: zone.connections.into(),
        limit: zone.limit.into(),
    });
    GetConnectionStatsReply {
        connections: datapath.connections_len().into(),
        limit: datapath.connection_settings().max_connections.into(),
        zones: zones.collect(),
        protocols,
        counters: Some(counters(datapath)),
    }
}

fn counters(datapath: &Datapath) -> ConnectionCounters {
    let counters = datapath.connection_counters();
    let fragments = datapath.fragment_stats();
    let both = |count: fn(&FragmentCounts) -> u64| count(&fragments.v4).saturating_add(count(&fragments.v6));
    ConnectionCounters {
        committed: counters.inserted,
        expired: counters.expired,
        early_dropped: counters.early_dropped,
        flushed: counters.flushed,
        replaced: counters.replaced,
        full: counters.full,
        zone_full: counters.zone_full,
        nat_exhausted: datapath.nat_exhausted(),
        collided: datapath.collided_packets(),
        invalid: datapath.invalid_packets(),
        fragments_held: fragments.waiting as u64,
        fragments_dropped: both(|f| f.expired + f.rejected + f.evicted),
        fragments_completed: both(|f| f.completed),
        fragments_refused: both(|f| f.too_small + f.overlapped + f.duplicate + f.malformed + f.full),
    }
}

/// Puts events into words.
struct Teller {
    datapath: Datapath,
    owners: Owners,
    /// Events since the last look at whose marks are whose.
    told: u32,
}

impl Teller {
    fn tell(&mut self, event: ConnEvent) -> ConnectionEvent {
        let (sequence, time, conn, change) = match event {
            ConnEvent::Changed { sequence, time, conn, change } => (sequence, time, conn, change),
            ConnEvent::Lost { count } => {
                return ConnectionEvent {
                    kind: Some(Kind::Lost(EventsLost { count })),
                    time_unix_ns: unix_ns(std::time::SystemTime::now()),
                    ..ConnectionEvent::default()
                };
            }
        };
        if self.told.is_multiple_of(OWNERS_FOR) {
            self.owners = Owners::of(&self.datapath.model());
        }
        self.told = self.told.wrapping_add(1);
        let kind = match change {
            ConnChange::New => Kind::Added(ConnectionAdded {}),
            ConnChange::Replied => Kind::Replied(ConnectionReplied {}),
            ConnChange::Marked { mark, label } => {
                Kind::Marked(ConnectionMarked { mark, label: show::label_text(label) })
            }
            ConnChange::Ended(reason) => Kind::Ended(ConnectionEnded { reason: reason.name().to_owned() }),
        };
        let now: Millis = self.datapath.clock().now();
        ConnectionEvent {
            sequence,
            time_unix_ns: unix_ns(time),
            connection: Some(show::connection(&conn, &self.datapath, &self.owners, now)),
            kind: Some(kind),
        }
    }
}

fn unix_ns(time: std::time::SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
