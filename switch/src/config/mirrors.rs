//! Mirrors in the file, and what a reload changes of them.

use super::check::{in_order, number, vlan_id};
use super::error::{Complaint, Source, did_you_mean};
use super::raw::RawMirror;
use super::setup::{Change, SetupError};
use super::{BridgeConfig, PortConfig};
use crate::Datapath;
use sluice_flows::bridge::VlanId;
use sluice_flows::mirror::{MIN_SNAPLEN, MirrorOutput, MirrorSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use toml::Spanned;

/// The mirrors of a bridge with these ports, besides which it may have its own.
pub(super) fn mirrors(
    source: Source<'_>,
    raw: BTreeMap<Spanned<String>, RawMirror>,
    ports: &[PortConfig],
    own: Option<&str>,
) -> Result<Vec<MirrorSpec>, Complaint> {
    let known: Vec<_> = ports.iter().map(|port| port.name.as_str()).chain(own).collect();
    in_order(raw).into_iter().map(|(name, raw)| mirror(source, &name, &raw, &known)).collect()
}

fn mirror(
    source: Source<'_>,
    name: &Spanned<String>,
    raw: &RawMirror,
    known: &[&str],
) -> Result<MirrorSpec, Complaint> {
    let port = |name: &Spanned<String>| match known.contains(&name.get_ref().as_str()) {
        true => Ok(Arc::from(name.get_ref().as_str())),
        false => {
            let near = did_you_mean(name.get_ref(), known.iter().copied());
            let what = format!("the bridge has no port `{}`{near}", name.get_ref());
            Err(source.complain(&name.span(), what).advice(format!("ports: {}", known.join(", "))))
        }
    };
    let ports = |names: &[Spanned<String>]| names.iter().map(port).collect::<Result<BTreeSet<_>, _>>();
    let vlans = raw.select_vlan.iter().map(|id| vlan_id(source, id)).collect::<Result<BTreeSet<VlanId>, _>>()?;
    let output = match (&raw.output_port, &raw.output_vlan) {
        (Some(name), None) => MirrorOutput::Port(port(name)?),
        (None, Some(id)) => MirrorOutput::Vlan(vlan_id(source, id)?),
        (Some(_), Some(vlan)) => {
            return Err(source.complain(&vlan.span(), "a mirror has `output_port` or `output_vlan`, not both"));
        }
        (None, None) => {
            let what = format!("mirror `{}` has no output", name.get_ref());
            return Err(source.complain(&name.span(), what).advice("give it `output_port` or `output_vlan`"));
        }
    };
    let least = i64::from(MIN_SNAPLEN);
    let snaplen = raw.snaplen.as_ref().map(|len| number(source, len, least..=65_535, "`snaplen`, in bytes,"));
    let spec = MirrorSpec {
        name: name.get_ref().as_str().into(),
        select_all: raw.select_all,
        select_src_port: ports(&raw.select_src_port)?,
        select_dst_port: ports(&raw.select_dst_port)?,
        select_vlan: vlans,
        output,
        snaplen: snaplen.transpose()?,
    };
    spec.check().map_err(|error| source.complain(&name.span(), format!("mirror `{}`: {error}", spec.name)))?;
    Ok(spec)
}

/// Makes the mirrors of a bridge that has its ports.
pub(super) fn start(datapath: &Datapath, bridge: &BridgeConfig) -> Result<(), SetupError> {
    let mut mirrors = bridge.mirrors.iter();
    mirrors.try_for_each(|mirror| Ok(datapath.set_mirror(&bridge.name, mirror.clone())?))
}

/// Makes the mirrors of a bridge what they are to be.
pub(super) fn reload(
    datapath: &Datapath,
    (old, new): (&BridgeConfig, &BridgeConfig),
    note: &mut dyn FnMut(Result<(), SetupError>, Change),
) {
    for mirror in &old.mirrors {
        if !new.mirrors.iter().any(|m| m.name == mirror.name) {
            let result = datapath.remove_mirror(&new.name, &mirror.name).map_err(SetupError::from);
            note(result, Change::MirrorRemoved(mirror.name.to_string()));
        }
    }
    for mirror in new.mirrors.iter().filter(|mirror| !old.mirrors.contains(mirror)) {
        let result = datapath.set_mirror(&new.name, mirror.clone()).map_err(SetupError::from);
        note(result, Change::MirrorSet(mirror.name.to_string()));
    }
}
