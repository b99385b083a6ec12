//! The data path as a whole, with memory ports: what goes in, what comes out, what is counted.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod broken;
mod caches;
mod captures;
mod connection_limits;
mod connection_states;
mod connections;
mod copies;
mod devices;
mod encap;
mod fragments;
mod frames;
mod learning;
mod lifecycle;
mod mirrors;
mod multicast;
mod output;
mod rates;
mod reject;
mod routing;
mod shared_state;
mod steering;
mod tunnels;
mod wires;

use sluice_flows::action::Action;
use sluice_flows::field::Field;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::segment::Segmenter;
use sluice_flows::packet::{Frame, GsoKind, MAX_FRAME_LEN, Offload};
use sluice_flows::rule::FlowSpec;
use sluice_flows::{Match, Owner, PortNo};
use sluice_switch::{Config, FailMode};
use sluice_tests::switch::Switch;

/// The ports of a frame that left by none.
const NOWHERE: [u16; 0] = [];

const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    (frame[5], frame[11], frame[12]) = (2, 4, 0x88);
    frame
};

/// A switch whose bridge `br0` does nothing of itself.
fn secure(ports: u16) -> Switch {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", ports, FailMode::Secure);
    switch
}

/// A flow for every packet.
fn flow(actions: impl Into<std::sync::Arc<[Action]>>) -> FlowSpec {
    FlowSpec::new(Match::any(), actions, Owner::user())
}

fn out(no: u16) -> Action {
    Action::Output(PortNo(no))
}

fn set_dst(value: u128) -> Action {
    Action::SetField { field: Field::EthDst, value, mask: u128::MAX }
}

fn bytes(frames: Vec<Frame>) -> Vec<Vec<u8>> {
    frames.iter().map(|f| f.bytes().to_vec()).collect()
}

/// [`FRAME`] with another destination.
fn with_dst(dst: u8) -> Vec<u8> {
    let mut frame = FRAME.to_vec();
    frame[5] = dst;
    frame
}

/// A super-frame of TCP over IPv4 with its checksum partial.
fn gso(payload: usize, gso_size: u16) -> Frame {
    let mut key = FlowKey::ZERO;
    let tcp =
        [(slot::ETH_SRC, 4), (slot::ETH_DST, 2), (slot::ETH_TYPE, 0x0800), (slot::IP_PROTO, 6), (slot::IP_TTL, 64)];
    tcp.into_iter().for_each(|(slot, value)| key.set(slot, value));
    let mut frame = Frame::from_bytes(&compose(&key, &vec![7; payload]));
    // The sum of the pseudo-header: no addresses, the protocol and the length.
    let sum = (6 + 20 + payload as u16).to_be_bytes();
    frame.bytes_mut()[50..52].copy_from_slice(&sum);
    frame.offload =
        Offload { gso: GsoKind::Tcp4, gso_size, csum_partial: true, csum_start: 34, csum_offset: 16, ..Offload::NONE };
    frame
}

/// What a super-frame is on the wire.
fn segments_of(frame: &Frame) -> Vec<Vec<u8>> {
    let (mut out, mut all) = (Frame::with_capacity(MAX_FRAME_LEN), Vec::new());
    let mut segments = Segmenter::new(frame).unwrap();
    while segments.next_into(&mut out).unwrap() {
        all.push(out.bytes().to_vec());
    }
    all
}
