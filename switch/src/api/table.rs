//! Flow tables as such: names, limits, what happens on a miss.

use super::{Api, error, find_bridge};
use crate::Datapath;
use sluice_flows::bridge::{Bridge, TableMiss, TableMod};
use sluice_flows::rule::TableId;
use sluice_proto::v1::table_service_server::TableService;
use sluice_proto::v1::{self as proto, ListTablesReply, ListTablesRequest, SetTableReply, SetTableRequest, Table};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl TableService for Api {
    async fn list_tables(&self, request: Request<ListTablesRequest>) -> Result<Response<ListTablesReply>, Status> {
        let request = request.into_inner();
        let list = move |datapath: &Datapath| {
            let bridge = find_bridge(datapath, &request.bridge)?;
            let tables = (0..=TableId::LAST.get()).filter_map(TableId::new);
            let wanted = tables
                .filter(|id| request.all || bridge.tables.table_len(*id) != 0 || bridge.table_configs.contains_key(id));
            Ok(ListTablesReply { tables: wanted.map(|id| table(&bridge, id)).collect() })
        };
        self.blocking(list).await.map(Response::new)
    }

    async fn set_table(&self, request: Request<SetTableRequest>) -> Result<Response<SetTableReply>, Status> {
        let request = request.into_inner();
        let set = move |datapath: &Datapath| {
            let bridge = find_bridge(datapath, &request.bridge)?;
            let change = change(&request.change.unwrap_or_default()).map_err(Status::invalid_argument)?;
            let done = datapath.apply_bundle(&bridge.name, &[change]).map_err(error::status)?;
            Ok(SetTableReply { evicted: done.changes.deleted })
        };
        self.blocking(set).await.map(Response::new)
    }
}

fn table(bridge: &Bridge, id: TableId) -> Table {
    let config = bridge.table_configs.get(&id).cloned().unwrap_or_default();
    let miss = match config.miss {
        TableMiss::Drop => proto::TableMiss::Drop,
        TableMiss::Controller => proto::TableMiss::Controller,
        TableMiss::Continue => proto::TableMiss::Continue,
    };
    Table {
        table: id.get().into(),
        name: config.name.as_deref().unwrap_or("").to_owned(),
        flows: bridge.tables.table_len(id) as u64,
        max_flows: config.max_flows.unwrap_or(0),
        evict: config.evict,
        miss: miss.into(),
    }
}

/// What a request changes of tables.
pub(super) fn change(asked: &proto::TableMod) -> Result<TableMod, String> {
    let number = |n: u32| u8::try_from(n).ok().and_then(TableId::new);
    let table = match asked.table {
        None => None,
        Some(n) => Some(number(n).ok_or_else(|| format!("there is no table {n}; tables are 0 to {}", TableId::LAST))?),
    };
    let miss = match proto::TableMiss::try_from(asked.miss) {
        Ok(proto::TableMiss::Unspecified) => None,
        Ok(proto::TableMiss::Drop) => Some(TableMiss::Drop),
        Ok(proto::TableMiss::Controller) => Some(TableMiss::Controller),
        Ok(proto::TableMiss::Continue) => Some(TableMiss::Continue),
        Err(_) => return Err(format!("{} is nothing that a table does on a miss; see TableMiss", asked.miss)),
    };
    Ok(TableMod {
        table,
        name: asked.name.as_deref().map(Into::into),
        miss,
        max_flows: asked.max_flows,
        evict: asked.evict,
    })
}
