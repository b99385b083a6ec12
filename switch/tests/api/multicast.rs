//! Multicast snooping: on and off, and what it knows.

use crate::Switch;
use sluice_proto::v1::bridge_service_client::BridgeServiceClient;
use sluice_proto::v1::fdb_service_client::FdbServiceClient;
use sluice_proto::v1::{ListBridgesRequest, ListMdbRequest, SetBridgeRequest};
use tonic::Code;

#[tokio::test]
async fn a_bridge_snoops_when_it_is_told_to_and_tells_who_wants_what() {
    let switch = Switch::start();
    let mut bridges = BridgeServiceClient::new(switch.channel().await);
    let asked = |name: &str| SetBridgeRequest { name: name.to_owned(), mcast_snooping: Some(true) };
    assert_eq!(bridges.set_bridge(asked("nowhere")).await.unwrap_err().code(), Code::NotFound);
    bridges.set_bridge(asked("br0")).await.unwrap();
    let list = bridges.list_bridges(ListBridgesRequest {}).await.unwrap().into_inner().bridges;
    assert!(list.iter().any(|bridge| bridge.name == "br0" && bridge.mcast_snooping));
    let mut fdb = FdbServiceClient::new(switch.channel().await);
    let mut stream = fdb.list_mdb(ListMdbRequest { bridge: "br0".to_owned() }).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_none(), "nobody has asked for anything");
}
