//! What a router wants done in the switch: changes of its flows first, then packets that may need them.

use crate::{ControlError, Datapath};
use sluice_flows::action::Action;
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::filter::FlowFilter;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::group::GroupMod;
use sluice_flows::packet::Frame;
use sluice_flows::rule::FlowSpec;
use sluice_flows::{DpPort, DropReason, PortNo};

/// Changes and packets that wait to be made and sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    mods: Vec<BridgeMod>,
    packets: Vec<(Frame, Vec<Action>)>,
    /// Ports of packets that there was no room for.
    lost: Vec<DpPort>,
}

impl Outbox {
    /// Adds a flow, or changes the one in its place, which keeps its counters.
    pub(super) fn add_flow(&mut self, spec: FlowSpec) {
        let change = FlowMod::Add { spec, check_overlap: false, reset_counts: false };
        self.mods.push(change.into());
    }

    /// Deletes the flow in the place of this one.
    pub(super) fn delete_flow(&mut self, spec: &FlowSpec) {
        self.mods.push(FlowMod::delete(FlowFilter::strictly(spec)).into());
    }

    /// Changes a group.
    pub(super) fn change_group(&mut self, change: GroupMod) {
        self.mods.push(change.into());
    }

    /// Sends a frame by these actions; an empty one is none.
    pub(super) fn send(&mut self, frame: &[u8], actions: Vec<Action>) {
        if !frame.is_empty() {
            self.send_frame(Frame::from_bytes(frame), actions);
        }
    }

    /// Sends a frame, with what its sender left to be done, by these actions.
    pub(super) fn send_frame(&mut self, frame: Frame, actions: Vec<Action>) {
        self.packets.push((frame, actions));
    }

    /// Counts a packet that came in by a port and had to wait where there was no room.
    pub(super) fn lose(&mut self, port: DpPort) {
        self.lost.push(port);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.mods.is_empty() && self.packets.is_empty() && self.lost.is_empty()
    }

    /// Makes the changes, all or none, then sends the packets.
    ///
    /// # Errors
    /// The bridge refused, or is gone. The packets are lost then.
    pub(super) fn deliver(self, datapath: &Datapath, bridge: &str) -> Result<(), ControlError> {
        self.lost.into_iter().for_each(|port| datapath.count_drop(DropReason::NoNeighbor, port));
        if !self.mods.is_empty() {
            super::program::apply(datapath, bridge, self.mods)?;
        }
        for (frame, actions) in self.packets {
            datapath.packet_out(bridge, PortNo::NONE, frame, actions)?;
        }
        Ok(())
    }
}
