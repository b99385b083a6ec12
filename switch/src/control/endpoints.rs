//! Endpoints: the sockets by which several tunnel ports receive. One is opened with the first port that needs it and
//! closed with the last. To the workers it is a port of its own number that is in no bridge.

use super::{ControlError, Datapath, Inner, State};
use crate::port::{Endpoint, EndpointId, Port, TunnelPort};
use crate::stats::PortCounters;
use sluice_flows::DpPort;
use sluice_flows::bridge::BridgePort;
use sluice_flows::tunnel::TlvMap;
use std::sync::Arc;

/// An endpoint, and its number to the workers.
pub(super) struct OpenEndpoint {
    pub(super) lane: DpPort,
    id: EndpointId,
    endpoint: Arc<Endpoint>,
}

impl Datapath {
    /// Says which Geneve option each `tun_metadata` is, for all tunnel ports.
    ///
    /// # Errors
    /// [`ControlError::Ending`].
    pub fn set_tlv_map(&self, map: TlvMap) -> Result<(), ControlError> {
        let mut state = self.inner.lock_for_change()?;
        state.tlvs = map;
        state.endpoints.iter().for_each(|open| open.endpoint.set_tlv_map(map));
        Ok(())
    }

    /// Which Geneve option each `tun_metadata` is.
    pub fn tlv_map(&self) -> TlvMap {
        self.inner.lock().tlvs
    }
}

impl Inner {
    /// Makes port number `dp` of an unattached tunnel port.
    pub(super) fn join_endpoint(
        &self,
        state: &mut State,
        port: TunnelPort,
        dp: DpPort,
    ) -> Result<Box<dyn Port>, ControlError> {
        let id = port.endpoint();
        if let Some(open) = state.endpoints.iter().find(|open| open.id == id) {
            return Ok(Box::new(port.attach(&open.endpoint, dp)?));
        }
        let workers = self.workers.len();
        let endpoint = Arc::new(Endpoint::open(&port, workers)?);
        endpoint.set_tlv_map(state.tlvs);
        let queues = endpoint.queues()?;
        let attached = port.attach(&endpoint, dp)?;
        // The port's own number is taken when it is added; the endpoint gets the next.
        let lane = state.free_port_but(dp);
        let counters = Arc::new(PortCounters::new(workers));
        self.hand_out(lane, queues.into_iter().map(Some), &counters, true);
        state.endpoints.push(OpenEndpoint { lane, id, endpoint });
        Ok(Box::new(attached))
    }

    /// Lets go of the endpoints that only these ports, gone by now, used.
    pub(super) fn leave_endpoints(&self, state: &mut State, ports: &[Arc<BridgePort>]) {
        if ports.iter().all(|port| port.tunnel.is_none()) {
            return;
        }
        let unused: Vec<_> = state.endpoints.extract_if(.., |open| open.endpoint.is_unused()).collect();
        self.take_back(unused.iter().map(|open| open.lane));
    }
}
