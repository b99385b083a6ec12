//! The server itself: its socket, health and reflection, events, its end.

use crate::Switch;
use sluice_proto::v1::event::Kind;
use sluice_proto::v1::event_service_client::EventServiceClient;
use sluice_proto::v1::status_service_client::StatusServiceClient;
use sluice_proto::v1::{GetStatusRequest, WatchEventsRequest};
use sluice_switch::api;
use std::os::unix::fs::PermissionsExt;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// Every service of the API.
const SERVICES: [&str; 19] = [
    "sluice.v1.AttachmentService",
    "sluice.v1.BridgeService",
    "sluice.v1.CaptureService",
    "sluice.v1.ConnectionService",
    "sluice.v1.EventService",
    "sluice.v1.FdbService",
    "sluice.v1.FlowService",
    "sluice.v1.GatewayService",
    "sluice.v1.GroupService",
    "sluice.v1.MeterService",
    "sluice.v1.MirrorService",
    "sluice.v1.PacketService",
    "sluice.v1.PortService",
    "sluice.v1.RouterService",
    "sluice.v1.StatsService",
    "sluice.v1.StatusService",
    "sluice.v1.TableService",
    "sluice.v1.TraceService",
    "sluice.v1.TunnelService",
];

#[tokio::test]
async fn every_service_says_that_it_is_healthy() {
    let switch = Switch::start();
    let mut client = HealthClient::new(switch.channel().await);
    for service in SERVICES.into_iter().chain([""]) {
        let reply = client.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap().into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "{service}");
    }
}

async fn reflect(switch: &Switch, ask: MessageRequest) -> MessageResponse {
    let mut client = ServerReflectionClient::new(switch.channel().await);
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut stream = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap().message_response.unwrap()
}

#[tokio::test]
async fn reflection_lists_the_services_and_describes_them() {
    let switch = Switch::start();
    let MessageResponse::ListServicesResponse(list) =
        reflect(&switch, MessageRequest::ListServices(String::new())).await
    else {
        panic!("a list was asked for")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).filter(|n| n.starts_with("sluice.")).collect();
    names.sort();
    assert_eq!(names, SERVICES);
    let ask = MessageRequest::FileContainingSymbol("sluice.v1.FlowService".to_owned());
    assert!(matches!(reflect(&switch, ask).await, MessageResponse::FileDescriptorResponse(_)));
}

#[tokio::test]
async fn a_second_server_on_the_socket_is_refused_and_the_first_goes_on() {
    let switch = Switch::start();
    let error = api::spawn(switch.datapath.clone(), &switch.socket()).unwrap_err().to_string();
    assert!(error.starts_with("another sluiced answers on "), "{error}");
    let status = StatusServiceClient::new(switch.channel().await).get_status(GetStatusRequest {}).await.unwrap();
    let status = status.into_inner();
    assert_eq!((status.bridges, status.ports, status.flows), (1, 3, 0));
    assert!(status.parts.iter().all(|p| p.ok), "{:?}", status.parts);
}

#[tokio::test]
async fn only_the_owner_may_open_the_socket() {
    let switch = Switch::start();
    assert_eq!(std::fs::metadata(switch.socket()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn events_tell_who_changed_what() {
    let switch = Switch::start();
    let mut client = EventServiceClient::new(switch.channel().await);
    let mut events = client.watch_events(WatchEventsRequest::default()).await.unwrap().into_inner();
    switch.add(&["send_flow_rem,ip actions=drop", "arp actions=NORMAL"]).await.unwrap();
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(event.bridge, "br0");
    assert!(matches!(event.kind, Some(Kind::FlowsChanged(ref c)) if c.added == 2), "{event:?}");
    switch.add(&["delete ip"]).await.unwrap();
    let event = events.message().await.unwrap().unwrap();
    assert!(matches!(event.kind, Some(Kind::FlowsChanged(ref c)) if c.deleted == 1), "{event:?}");
    let event = events.message().await.unwrap().unwrap();
    let Some(Kind::FlowRemoved(removed)) = event.kind else { panic!("{event:?}") };
    assert_eq!((removed.reason.as_str(), removed.flow.unwrap().r#match.as_str()), ("delete", "ip"));
    switch.datapath.remove_bridge("br0").unwrap();
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(Kind::BridgeRemoved(_))) {
        let event = events.message().await.unwrap().unwrap();
        assert_eq!(event.bridge, "br0");
        seen.extend(event.kind);
        assert!(seen.len() <= 4, "{seen:?}");
    }
    assert_eq!(seen.iter().filter(|k| matches!(k, Kind::PortRemoved(_))).count(), 3);
}

#[tokio::test]
async fn the_server_ends_with_a_watcher_still_there_and_takes_its_socket_along() {
    let mut switch = Switch::start();
    let mut client = EventServiceClient::new(switch.channel().await);
    let mut events = client.watch_events(WatchEventsRequest::default()).await.unwrap().into_inner();
    let server = switch.server.take().unwrap();
    tokio::task::spawn_blocking(|| server.stop()).await.unwrap().unwrap();
    assert!(!switch.socket().exists());
    // The stream ends, in order or not.
    assert!(!matches!(events.message().await, Ok(Some(_))));
}
