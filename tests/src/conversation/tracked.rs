//! Our switch, with the ends of conversations around it.

use super::{Event, Packet, Side, Views};
use crate::generate::program::FlowLine;
use crate::switch::{Switch, take_all};
use sluice_flows::DropReason;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::packet::Frame;
use sluice_flows::text::{Names, parse_flow};
use sluice_switch::conntrack::ConnFilter;
use sluice_switch::{Clock, Config, FailMode};

/// Ports of a switch in a scenario: 1 to this. Ends are behind 1 and 2, sometimes 3.
pub const PORTS: u16 = 4;
/// The port that copies go out by, which tell what the tracker said. Nobody receives them.
pub const MONITOR: u16 = 4;
/// Where frames have their number: the last two bytes of the source address.
const NUMBER: usize = 10;

/// A frame that came out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Out {
    /// The number of the frame that it was.
    pub number: u16,
    /// The port.
    pub port: u16,
    /// The frame.
    pub frame: Vec<u8>,
}

impl Out {
    /// A frame that came out of a port.
    pub fn new(port: u16, frame: Vec<u8>) -> Self {
        let number = frame.get(NUMBER..NUMBER + 2).map_or(0, |at| u16::from_be_bytes([at[0], at[1]]));
        Self { number, port, frame }
    }
}

/// Our switch.
pub struct Tracked {
    /// The switch.
    pub switch: Switch,
    clock: Clock,
    views: Views,
}

impl Tracked {
    /// A switch with these flows, and ends that have seen nothing.
    ///
    /// # Errors
    /// What it does not take.
    pub fn start(config: Config, flows: &[FlowLine], views: Views) -> Result<Self, String> {
        let clock = Clock::manual();
        let mut switch = Switch::start(Config { clock: clock.clone(), ..config });
        switch.bridge("br0", PORTS, FailMode::Secure);
        let tracked = Self { switch, clock, views };
        tracked.change(flows)?;
        Ok(tracked)
    }

    /// Adds flows.
    ///
    /// # Errors
    /// What it does not take.
    pub fn change(&self, flows: &[FlowLine]) -> Result<(), String> {
        let mut mods = Vec::new();
        for line in flows {
            let text = line.to_string();
            mods.push(FlowMod::add(parse_flow(&text, Names::NONE).map_err(|e| format!("{text}: {e}"))?.value));
        }
        self.switch.datapath.apply_bundle("br0", &mods).map_err(|e| e.to_string())?;
        Ok(())
    }
}

impl Side for Tracked {
    fn send(&mut self, packets: &[(u16, &Packet)]) -> Vec<Out> {
        for (number, packet) in packets {
            let frame = self.views.render(*number, packet);
            let frame = Frame::from_bytes(&frame);
            self.switch.send_to(packet.reply.into(), self.views.port(packet), frame);
        }
        self.switch.wait();
        let out = (1..=PORTS).flat_map(|no| {
            take_all(self.switch.end(no)).into_iter().map(move |frame| Out::new(no, frame.bytes().to_vec()))
        });
        let out = out.collect();
        deliver(&mut self.views, packets, out)
    }

    fn full(&self) -> u64 {
        let datapath = &self.switch.datapath;
        self.switch.sync();
        datapath.nat_exhausted() + datapath.connection_counters().raced + self.switch.dropped(DropReason::CtFull)
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Send(_) => {}
            Event::Wait(millis) => self.clock.advance(*millis),
            Event::Flow(flow) => self.change(std::slice::from_ref(flow)).expect("a flow that OVS takes"),
            Event::Flush => {
                self.switch.datapath.flush_connections(&ConnFilter::default());
            }
        }
    }
}

/// Shows the ends what came out, and puts it in order of number and port.
pub fn deliver(views: &mut Views, packets: &[(u16, &Packet)], mut out: Vec<Out>) -> Vec<Out> {
    // Frames of one number by one port stay in their order.
    out.sort_by_key(|out| (out.number, out.port));
    views.sent(packets);
    for frame in out.iter().filter(|out| out.port != MONITOR) {
        views.came_out(frame.number, &frame.frame);
    }
    out
}
