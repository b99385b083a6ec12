//! Meters: lists with counters. Bundles change them.

use super::{Api, Parts, find_bridge};
use crate::Datapath;
use sluice_flows::action::MeterId;
use sluice_flows::meter::Meter;
use sluice_flows::reference::Reference;
use sluice_flows::rule::Millis;
use sluice_flows::table::Tables;
use sluice_flows::text::show_meter;
use sluice_proto::v1::meter_service_server::MeterService;
use sluice_proto::v1::{self as proto, ListMetersReply, ListMetersRequest, MeterBand};
use tonic::{Request, Response, Status};

/// Meters in one part of a list.
const CHUNK: usize = 500;

#[tonic::async_trait]
impl MeterService for Api {
    type ListMetersStream = Parts<ListMetersReply>;

    async fn list_meters(
        &self,
        request: Request<ListMetersRequest>,
    ) -> Result<Response<Self::ListMetersStream>, Status> {
        let request = request.into_inner();
        let select = move |datapath: &Datapath| {
            let bridge = find_bridge(datapath, &request.bridge)?;
            let only = request.meter.map(MeterId);
            let wanted = bridge.meters.values().filter(|meter| only.is_none_or(|id| id == meter.spec.id));
            Ok((wanted.cloned().collect::<Vec<_>>(), bridge.tables.clone()))
        };
        let (meters, tables) = self.blocking(select).await?;
        Ok(Response::new(self.parts(move |datapath, send| {
            for chunk in meters.chunks(CHUNK) {
                let now = datapath.clock().now();
                if !send(ListMetersReply { meters: chunk.iter().map(|m| meter(m, &tables, now)).collect() }) {
                    break;
                }
            }
            Ok(())
        })))
    }
}

fn meter(meter: &Meter, tables: &Tables, now: Millis) -> proto::Meter {
    let (packets, bytes) = meter.came();
    let bands = meter.spec.bands.iter().zip(meter.dropped()).map(|(band, (packets, bytes))| MeterBand {
        rate: band.rate,
        burst_size: band.burst_size,
        packets,
        bytes,
    });
    proto::Meter {
        id: meter.spec.id.0,
        meter: show_meter(&meter.spec).to_string(),
        owner: meter.spec.owner.to_string(),
        flows: tables.references().of(Reference::Meter(meter.spec.id)).count() as u64,
        packets,
        bytes,
        duration_ms: now.since(meter.created),
        bands: bands.collect(),
    }
}
