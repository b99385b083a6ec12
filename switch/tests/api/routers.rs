//! Routers over the API.

use super::Switch;
use sluice_proto::v1::router_event::Kind;
use sluice_proto::v1::router_service_client::RouterServiceClient;
use sluice_proto::v1::{
    AddRoutesRequest, DeleteRouterRequest, DeleteRoutesRequest, FlushNeighborsRequest, ListNeighborsRequest,
    ListRoutersRequest, ListRoutesRequest, NextHop, Route, RouteStatus, Router, RouterInterface, SetNeighborRequest,
    SetRouterRequest, StaticNeighbor, WatchRoutersRequest,
};
use tonic::Code;
use tonic::transport::Channel;

fn interface(n: u16) -> RouterInterface {
    RouterInterface {
        name: format!("p{n}"),
        addresses: vec![format!("10.0.{n}.1/24"), format!("fd00:{n}::1/64")],
        ..RouterInterface::default()
    }
}

fn router() -> Router {
    Router { name: "r1".into(), interfaces: (1..=3).map(interface).collect(), ..Router::default() }
}

fn route(to: &str, via: &[&str]) -> Route {
    let hop = |address: &&str| NextHop { address: (*address).to_owned(), ..NextHop::default() };
    Route { destination: to.into(), next_hops: via.iter().map(hop).collect(), ..Route::default() }
}

async fn routes(client: &mut RouterServiceClient<Channel>, address: &str) -> Vec<RouteStatus> {
    let request = ListRoutesRequest { address: address.into(), ..ListRoutesRequest::default() };
    let mut stream = client.list_routes(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        all.extend(part.routes);
    }
    all
}

fn parts(routes: Vec<Route>) -> impl tokio_stream::Stream<Item = AddRoutesRequest> {
    let part = |part: &[Route]| AddRoutesRequest { router: String::new(), routes: part.to_vec() };
    tokio_stream::iter(routes.chunks(2).map(part).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_router_is_set_listed_changed_and_deleted() {
    let switch = Switch::start();
    let mut client = RouterServiceClient::new(switch.channel().await);
    let mut events = client.watch_routers(WatchRoutersRequest::default()).await.unwrap().into_inner();
    client.set_router(SetRouterRequest { router: Some(router()) }).await.unwrap();
    assert!(matches!(events.message().await.unwrap().unwrap().kind, Some(Kind::Interface(_) | Kind::Set(_))));
    let listed = client.list_routers(ListRoutersRequest::default()).await.unwrap().into_inner().routers;
    let first = listed[0].interfaces[0].clone().interface.unwrap();
    assert_eq!((listed[0].bridge.as_str(), listed[0].routes, first.port.as_str()), ("br0", 6, "p1"));
    assert!(first.mac.starts_with("02:") && first.mtu == 1500 && listed[0].interfaces[0].up, "{first:?}");

    let three = vec![
        route("172.16.0.0/12", &["10.0.2.2", "10.0.3.2"]),
        route("default", &["10.0.1.2"]),
        Route { kind: "blackhole".into(), ..route("fd00:9::/32", &[]) },
    ];
    let reply = client.add_routes(parts(three.clone())).await.unwrap().into_inner();
    assert_eq!((reply.added, reply.replaced), (3, 0));
    let to = routes(&mut client, "172.16.0.9").await;
    let shown: Vec<_> = to.iter().map(|r| (r.route.clone().unwrap().destination, r.active, r.alive.len())).collect();
    assert_eq!(shown, [("0.0.0.0/0".into(), true, 1), ("172.16.0.0/12".into(), true, 2)]);
    assert_eq!(routes(&mut client, "").await.len(), 9);

    let gone = DeleteRoutesRequest { routes: vec![route("default", &[])], ..DeleteRoutesRequest::default() };
    assert_eq!(client.delete_routes(tokio_stream::iter([gone.clone()])).await.unwrap().into_inner().deleted, 1);
    let error = client.delete_routes(tokio_stream::iter([gone])).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");

    client.delete_router(DeleteRouterRequest { name: "r1".into() }).await.unwrap();
    let bridge = switch.datapath.bridge("br0").unwrap();
    assert_eq!((bridge.tables.len(), bridge.groups.len()), (0, 0));
}

#[tokio::test]
async fn neighbours_are_set_listed_and_flushed() {
    let switch = Switch::start();
    let mut client = RouterServiceClient::new(switch.channel().await);
    client.set_router(SetRouterRequest { router: Some(router()) }).await.unwrap();
    let neighbor = |address: &str, mac: &str| SetNeighborRequest {
        router: "r1".into(),
        neighbor: Some(StaticNeighbor { interface: "p1".into(), address: address.into(), mac: mac.into() }),
    };
    client.set_neighbor(neighbor("10.0.1.9", "02:00:00:00:00:09")).await.unwrap();
    for (address, mac) in [("10.0.7.9", "02:00:00:00:00:09"), ("10.0.1.9", "ff:ff:ff:ff:ff:ff"), ("x", "y")] {
        let error = client.set_neighbor(neighbor(address, mac)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    let mut stream = client.list_neighbors(ListNeighborsRequest::default()).await.unwrap().into_inner();
    let all = stream.message().await.unwrap().unwrap().neighbors;
    assert_eq!((all[0].mac.as_str(), all[0].state.as_str()), ("02:00:00:00:00:09", "permanent"));
    let flushed = client.flush_neighbors(FlushNeighborsRequest::default()).await.unwrap().into_inner().flushed;
    assert_eq!(flushed, 0, "what was set stays");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_place() {
    let switch = Switch::start();
    let mut client = RouterServiceClient::new(switch.channel().await);
    let error = client.add_routes(parts(vec![route("default", &["10.0.1.2"])])).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let mut faulty = router();
    faulty.interfaces[1].port = "p9".into();
    let error = client.set_router(SetRouterRequest { router: Some(faulty) }).await.unwrap_err();
    assert_eq!((error.code(), error.message().contains("interface p2")), (Code::InvalidArgument, true), "{error}");
    let mut wide = router();
    wide.interfaces[0].vlan = 70_000;
    let error = client.set_router(SetRouterRequest { router: Some(wide) }).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    client.set_router(SetRouterRequest { router: Some(router()) }).await.unwrap();
    let many = vec![route("172.16.0.0/12", &["10.0.2.2"]), route("172.17.0.0/16", &["10.9.9.9"])];
    let error = client.add_routes(parts(many)).await.unwrap_err();
    assert!(error.message().contains("route 172.17.0.0/16") && error.message().contains("10.9.9.9"), "{error}");
    assert_eq!(routes(&mut client, "").await.len(), 6, "all or none");
}
