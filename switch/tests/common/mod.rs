//! A switch with memory ports, and frames to put through it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "every test file includes it as a module of its own")]

use sluice_flows::packet::Frame;
use sluice_flows::text::parse_flow;
use sluice_switch::flow_mod::FlowMod;
use sluice_switch::port::{MemHandle, MemOptions, MemPort};
use sluice_switch::{Config, Datapath, DpPort, FailMode, PortDevice, PortRequest};
