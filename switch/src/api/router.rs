//! Routers.

mod show;

use super::watch::Watched;
use super::{Api, Parts, error, find_bridge};
use crate::Datapath;
use crate::router::named::{address, destination, mac_of, named_interface, vrf_of};
use crate::router::{
    NamedAdvertisement, NamedHop, NamedInterface, NamedNeighbor, NamedProbe, NamedRoute, NamedRouter, RouteFilter,
    RouterError, RouterInfo, mac_bytes,
};
use sluice_flows::router::{Route as Spec, RouteKey, RouterConfig};
use sluice_proto::v1::router_service_server::RouterService;
use sluice_proto::v1::{
    AddRoutesReply, AddRoutesRequest, DeleteNeighborReply, DeleteNeighborRequest, DeleteRouterReply,
    DeleteRouterRequest, DeleteRoutesReply, DeleteRoutesRequest, FlushNeighborsReply, FlushNeighborsRequest,
    ListNeighborsReply, ListNeighborsRequest, ListRoutersReply, ListRoutersRequest, ListRoutesReply, ListRoutesRequest,
    Route, Router, RouterAdvertisement, RouterEvent, RouterInterface, SetNeighborReply, SetNeighborRequest,
    SetRouterReply, SetRouterRequest, WatchRoutersRequest,
};
use tonic::{Code, Request, Response, Status, Streaming};

/// Routes or neighbours in one part of a list.
const CHUNK: usize = 500;
/// Most routes in one stream of changes: as many as a bundle has changes.
const MAX_ROUTES: usize = 1_000_000;
/// Events that wait for a slow reader.
const DEPTH: usize = 4096;

#[tonic::async_trait]
impl RouterService for Api {
    type ListRoutesStream = Parts<ListRoutesReply>;
    type ListNeighborsStream = Parts<ListNeighborsReply>;
    type WatchRoutersStream = Watched<RouterEvent>;

    async fn set_router(&self, request: Request<SetRouterRequest>) -> Result<Response<SetRouterReply>, Status> {
        let router = request.into_inner().router.ok_or_else(|| Status::invalid_argument("which router?"))?;
        self.blocking(move |datapath| set(datapath, router)).await?;
        Ok(Response::new(SetRouterReply {}))
    }

    async fn delete_router(
        &self,
        request: Request<DeleteRouterRequest>,
    ) -> Result<Response<DeleteRouterReply>, Status> {
        let name = request.into_inner().name;
        self.blocking(move |datapath| datapath.remove_router(&name).map_err(status)).await?;
        Ok(Response::new(DeleteRouterReply {}))
    }

    async fn list_routers(&self, request: Request<ListRoutersRequest>) -> Result<Response<ListRoutersReply>, Status> {
        let only = request.into_inner().router;
        let work = move |datapath: &Datapath| {
            let routers = select(datapath, &only)?.iter().map(show::router).collect();
            Ok(ListRoutersReply { routers })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn add_routes(
        &self,
        request: Request<Streaming<AddRoutesRequest>>,
    ) -> Result<Response<AddRoutesReply>, Status> {
        let (router, routes) = gather(request.into_inner(), |part| (part.router, part.routes)).await?;
        let work = move |datapath: &Datapath| {
            let info = the_one(datapath, &router)?;
            let routes = resolve(&info.spec.config, routes)?;
            let count = routes.len() as u64;
            let added = datapath.add_routes(&info.spec.config.name, routes).map_err(status)? as u64;
            Ok(AddRoutesReply { added, replaced: count.saturating_sub(added) })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn delete_routes(
        &self,
        request: Request<Streaming<DeleteRoutesRequest>>,
    ) -> Result<Response<DeleteRoutesReply>, Status> {
        let (router, routes) = gather(request.into_inner(), |part| (part.router, part.routes)).await?;
        let work = move |datapath: &Datapath| {
            let info = the_one(datapath, &router)?;
            let key = |route: Route| key(&info.spec.config, &route);
            let keys = routes.into_iter().map(key).collect::<Result<Vec<_>, _>>().map_err(Status::invalid_argument)?;
            datapath.remove_routes(&info.spec.config.name, &keys).map_err(status)?;
            Ok(DeleteRoutesReply { deleted: keys.len() as u64 })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn list_routes(
        &self,
        request: Request<ListRoutesRequest>,
    ) -> Result<Response<Self::ListRoutesStream>, Status> {
        let ListRoutesRequest { router, vrf, address: to } = request.into_inner();
        let covers = match to.as_str() {
            "" => None,
            text => Some(address(text).map_err(Status::invalid_argument)?),
        };
        Ok(Response::new(self.parts(move |datapath, send| {
            // Workers that do not answer in time leave counters a little behind.
            _ = datapath.sync_stats();
            let routers = select(datapath, &router)?;
            let has_vrf = |info: &&RouterInfo| vrf.is_empty() || info.spec.config.vrf_named(&vrf).is_some();
            if !routers.is_empty() && !routers.iter().any(|info| has_vrf(&info)) {
                return Err(Status::not_found(format!("no router has a VRF {vrf:?}")));
            }
            for info in routers.iter().filter(has_vrf) {
                let vrf = info.spec.config.vrf_named(&vrf).map(|vrf| vrf.id);
                if !list(datapath, info, &RouteFilter { vrf, covers }, send)? {
                    break;
                }
            }
            Ok(())
        })))
    }

    async fn list_neighbors(
        &self,
        request: Request<ListNeighborsRequest>,
    ) -> Result<Response<Self::ListNeighborsStream>, Status> {
        let only = request.into_inner().router;
        Ok(Response::new(self.parts(move |datapath, send| {
            for info in select(datapath, &only)? {
                let neighbors = datapath.neighbors(&info.spec.config.name).map_err(status)?;
                let shown: Vec<_> = neighbors.iter().map(|neighbor| show::neighbor(&info, neighbor)).collect();
                for part in shown.chunks(CHUNK) {
                    if !send(ListNeighborsReply { neighbors: part.to_vec() }) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })))
    }

    async fn set_neighbor(&self, request: Request<SetNeighborRequest>) -> Result<Response<SetNeighborReply>, Status> {
        let SetNeighborRequest { router, neighbor } = request.into_inner();
        let neighbor = neighbor.ok_or_else(|| Status::invalid_argument("which neighbour?"))?;
        let work = move |datapath: &Datapath| {
            let info = the_one(datapath, &router)?;
            let mac = mac_of(&neighbor.mac).map_err(Status::invalid_argument)?;
            let key = neighbor_key(&info, &neighbor.interface, &neighbor.address)?;
            datapath.set_neighbor(&info.spec.config.name, key, mac_bytes(mac)).map_err(status)
        };
        self.blocking(work).await?;
        Ok(Response::new(SetNeighborReply {}))
    }

    async fn delete_neighbor(
        &self,
        request: Request<DeleteNeighborRequest>,
    ) -> Result<Response<DeleteNeighborReply>, Status> {
        let DeleteNeighborRequest { router, interface, address } = request.into_inner();
        let work = move |datapath: &Datapath| {
            let info = the_one(datapath, &router)?;
            let key = neighbor_key(&info, &interface, &address)?;
            datapath.remove_neighbor(&info.spec.config.name, key).map_err(status)
        };
        self.blocking(work).await?;
        Ok(Response::new(DeleteNeighborReply {}))
    }

    async fn flush_neighbors(
        &self,
        request: Request<FlushNeighborsRequest>,
    ) -> Result<Response<FlushNeighborsReply>, Status> {
        let FlushNeighborsRequest { router, interface } = request.into_inner();
        let work = move |datapath: &Datapath| {
            let info = the_one(datapath, &router)?;
            let config = &info.spec.config;
            let only = match interface.as_str() {
                "" => None,
                name => Some(named_interface(config, name).map_err(Status::not_found)?),
            };
            let flushed = datapath.flush_neighbors(&config.name, only).map_err(status)? as u64;
            Ok(FlushNeighborsReply { flushed })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn watch_routers(
        &self,
        request: Request<WatchRoutersRequest>,
    ) -> Result<Response<Self::WatchRoutersStream>, Status> {
        let only = request.into_inner().router;
        let events = self.datapath.router_events(DEPTH);
        let stream = self.watch(events, move |event: crate::router::RouterEvent| {
            let is_wanted = only.is_empty() || event.router.is_empty() || *event.router == *only;
            is_wanted.then(|| show::event(event))
        })?;
        Ok(Response::new(stream))
    }
}

fn set(datapath: &Datapath, router: Router) -> Result<(), Status> {
    let bridge = find_bridge(datapath, &router.bridge)?;
    let mut named = named(router)?;
    named.bridge = bridge.name.to_string();
    let spec = named.resolve(datapath, &bridge).map_err(|error| Status::invalid_argument(error.to_string()))?;
    datapath.set_router(spec).map_err(status)
}

/// Sends the routes of one router that the filter selects. Returns whether somebody still takes them.
fn list(
    datapath: &Datapath,
    info: &RouterInfo,
    filter: &RouteFilter,
    send: &dyn Fn(ListRoutesReply) -> bool,
) -> Result<bool, Status> {
    let mut after: Option<RouteKey> = None;
    loop {
        let found = match datapath.routes(&info.spec.config.name, filter, after.as_ref(), CHUNK) {
            // It was removed meanwhile.
            Err(RouterError::NoRouter { .. }) => return Ok(true),
            found => found.map_err(status)?,
        };
        let Some(last) = found.last() else { return Ok(true) };
        after = Some(last.route.key());
        let routes = found.iter().map(|route| show::route(info, route)).collect();
        if !send(ListRoutesReply { routes }) {
            return Ok(false);
        }
    }
}

/// All parts of a stream of routes, and the router that they are for.
async fn gather<T>(
    mut parts: Streaming<T>,
    split: impl Fn(T) -> (String, Vec<Route>),
) -> Result<(String, Vec<Route>), Status> {
    let (mut router, mut all) = (String::new(), Vec::new());
    while let Some(part) = parts.message().await? {
        let (name, routes) = split(part);
        if !name.is_empty() && !router.is_empty() && name != router {
            return Err(Status::invalid_argument("a stream of routes is for one router"));
        }
        if !name.is_empty() {
            router = name;
        }
        if all.len() + routes.len() > MAX_ROUTES {
            return Err(Status::resource_exhausted(format!("a stream has at most {MAX_ROUTES} routes")));
        }
        all.extend(routes);
    }
    Ok((router, all))
}

/// The routers that a request means: the one named, or all.
fn select(datapath: &Datapath, name: &str) -> Result<Vec<RouterInfo>, Status> {
    if name.is_empty() {
        return Ok(datapath.router_list());
    }
    the_one(datapath, name).map(|info| vec![info])
}

/// The router that a request means: the one named, or the only one there is.
fn the_one(datapath: &Datapath, name: &str) -> Result<RouterInfo, Status> {
    let mut all = datapath.router_list();
    let known: Vec<_> = all.iter().map(|info| info.spec.config.name.clone()).collect();
    match all.iter().position(|info| info.spec.config.name == name) {
        Some(at) => Ok(all.swap_remove(at)),
        None if !name.is_empty() => {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(status(RouterError::NoRouter { name: name.to_owned(), known }))
        }
        None if all.len() == 1 => Ok(all.swap_remove(0)),
        None if all.is_empty() => Err(Status::failed_precondition("the switch has no router yet; set one first")),
        None => Err(Status::invalid_argument(format!("which router? There are {}", known.join(", ")))),
    }
}

fn neighbor_key(info: &RouterInfo, interface: &str, text: &str) -> Result<crate::router::NeighborKey, Status> {
    let interface = named_interface(&info.spec.config, interface).map_err(Status::invalid_argument)?;
    Ok((interface, address(text).map_err(Status::invalid_argument)?))
}

fn resolve(config: &RouterConfig, routes: Vec<Route>) -> Result<Vec<Spec>, Status> {
    let one = |route: Route| {
        let named = route_of(route)?;
        named.resolve(config).map_err(|what| Status::invalid_argument(format!("route {}: {what}", named.to)))
    };
    routes.into_iter().map(one).collect()
}

fn key(config: &RouterConfig, route: &Route) -> Result<RouteKey, String> {
    Ok(RouteKey {
        vrf: vrf_of(config, &route.vrf)?,
        destination: destination(&route.destination)?,
        distance: narrow("a distance", route.distance.unwrap_or(1))?,
    })
}

/// A number that is to fit into fewer bits.
fn narrow<T: TryFrom<u32>>(what: &str, number: u32) -> Result<T, String> {
    T::try_from(number).map_err(|_| format!("{what} cannot be {number}"))
}

fn number<T: TryFrom<u32>>(what: &str, value: u32) -> Result<T, Status> {
    narrow(what, value).map_err(Status::invalid_argument)
}

fn route_of(route: Route) -> Result<NamedRoute, Status> {
    let hop = |hop: sluice_proto::v1::NextHop| {
        Ok(NamedHop { address: hop.address, interface: hop.interface, weight: number("a weight", hop.weight)? })
    };
    Ok(NamedRoute {
        to: route.destination,
        vrf: route.vrf,
        via: route.next_hops.into_iter().map(hop).collect::<Result<_, Status>>()?,
        kind: route.kind,
        distance: route.distance.map(|distance| number("a distance", distance)).transpose()?,
    })
}

fn named(router: Router) -> Result<NamedRouter, Status> {
    let neighbor =
        |n: sluice_proto::v1::StaticNeighbor| NamedNeighbor { interface: n.interface, address: n.address, mac: n.mac };
    let probe = |p: sluice_proto::v1::NextHopProbe| {
        let losses = number("a number of losses", p.losses)?;
        Ok(NamedProbe { address: p.address, interface: p.interface, vrf: p.vrf, interval_ms: p.interval_ms, losses })
    };
    Ok(NamedRouter {
        name: router.name,
        bridge: router.bridge,
        table: number("the first table", router.first_table)?,
        vrfs: router.vrfs,
        interfaces: router.interfaces.into_iter().map(interface).collect::<Result<_, _>>()?,
        routes: router.routes.into_iter().map(route_of).collect::<Result<_, _>>()?,
        neighbors: router.neighbors.into_iter().map(neighbor).collect(),
        probes: router.probes.into_iter().map(probe).collect::<Result<_, Status>>()?,
    })
}

fn interface(interface: RouterInterface) -> Result<NamedInterface, Status> {
    Ok(NamedInterface {
        name: interface.name,
        port: interface.port,
        vlan: number("a VLAN", interface.vlan)?,
        vrf: interface.vrf,
        mac: interface.mac,
        addresses: interface.addresses,
        mtu: number("an MTU", interface.mtu)?,
        proxied: interface.proxied,
        layer3: interface.layer3,
        ra: interface.ra.map(advertisement).transpose()?,
    })
}

fn advertisement(ra: RouterAdvertisement) -> Result<NamedAdvertisement, Status> {
    Ok(NamedAdvertisement {
        max_interval: ra.max_interval_s.map(|s| number("an interval", s)).transpose()?,
        lifetime: ra.lifetime_s.map(|s| number("a lifetime", s)).transpose()?,
        hop_limit: ra.hop_limit.map(|limit| number("a hop limit", limit)).transpose()?,
        managed: ra.managed,
        other: ra.other,
        no_mtu: ra.no_mtu,
        prefixes: ra.prefixes,
        dns: ra.dns_servers,
        search: ra.dns_search,
    })
}

/// The status for what was refused.
fn status(error: RouterError) -> Status {
    let code = match error {
        RouterError::NoRouter { .. } | RouterError::NoRoute { .. } | RouterError::NoNeighbor { .. } => Code::NotFound,
        RouterError::BridgeTaken { .. } | RouterError::Elsewhere { .. } => Code::AlreadyExists,
        RouterError::Thread(_) => Code::ResourceExhausted,
        RouterError::Control(error) => return error::status(error),
        _ => Code::InvalidArgument,
    };
    Status::new(code, error.to_string())
}
