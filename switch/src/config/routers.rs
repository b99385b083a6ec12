//! Routers in the file: `[[router]]`.

use super::error::{Complaint, Source};
use super::setup::{Change, SetupError};
use super::{BridgeConfig, Config};
use crate::Datapath;
use crate::router::NamedRouter;
use sluice_flows::PortNo;
use std::collections::HashMap;
use toml::Spanned;

/// Looks for faults of the routers, as far as they show without a switch.
pub(super) fn check(
    source: Source<'_>,
    raw: Vec<Spanned<NamedRouter>>,
    bridges: &[BridgeConfig],
) -> Result<Vec<NamedRouter>, Complaint> {
    let (mut names, mut places) = (HashMap::new(), HashMap::new());
    let mut routers = Vec::with_capacity(raw.len());
    for spanned in raw {
        let span = spanned.span();
        let router = spanned.into_inner();
        let complain = |what: String| source.complain(&span, what);
        let Some(bridge) = bridges.iter().find(|bridge| bridge.name == router.bridge) else {
            let known: Vec<_> = bridges.iter().map(|bridge| bridge.name.as_str()).collect();
            let what = format!("router {}: there is no bridge `{}`", router.name, router.bridge);
            return Err(complain(what).advice(format!("bridges of this file: {}", known.join(", "))));
        };
        if names.insert(router.name.clone(), ()).is_some() {
            return Err(complain(format!("there are two routers `{}`", router.name)));
        }
        if let Some(other) = places.insert(router.bridge.clone(), router.name.clone()) {
            let what = format!("bridge {} has router {other} already", router.bridge);
            return Err(complain(what).advice("a bridge has one router; use VRFs, or another bridge"));
        }
        // Numbers are given when ports are added; here any that differ will do.
        let numbers: HashMap<&str, PortNo> = bridge
            .ports
            .iter()
            .map(|port| port.name.as_str())
            .zip((1..).map(PortNo))
            .chain(bridge.local_port.then_some((bridge.name.as_str(), PortNo::LOCAL)))
            .collect();
        let port = |name: &str| numbers.get(name).map(|no| (*no, 0));
        let spec = router.resolve_with(&port).map_err(|error| complain(error.to_string()))?;
        spec.config.check().map_err(|error| complain(error.to_string()))?;
        routers.push(router);
    }
    Ok(routers)
}

/// Makes the routers of a switch that has none.
pub(super) fn start(datapath: &Datapath, config: &Config) -> Result<(), SetupError> {
    config.routers.iter().try_for_each(|router| set(datapath, router))
}

fn set(datapath: &Datapath, router: &NamedRouter) -> Result<(), SetupError> {
    let bridge = datapath.bridge(&router.bridge)?;
    Ok(datapath.set_router(router.resolve(datapath, &bridge)?)?)
}

/// Makes the routers that are as `old` says what `new` says; also those that went with a bridge that was made anew.
pub(super) fn reload(
    datapath: &Datapath,
    old: &Config,
    new: &Config,
    note: &mut dyn FnMut(Result<(), SetupError>, Change),
) {
    for router in old.routers.iter().filter(|old| !new.routers.iter().any(|new| new.name == old.name)) {
        let result = datapath.remove_router(&router.name).map_err(SetupError::from);
        note(result, Change::RouterRemoved(router.name.clone()));
    }
    let there = datapath.router_list();
    for router in &new.routers {
        let is_there = there.iter().any(|info| info.spec.config.name == router.name);
        if !is_there || !old.routers.contains(router) {
            note(set(datapath, router), Change::RouterSet(router.name.clone()));
        }
    }
}
