//! Tunnel ports: frames to and from other hosts, in UDP or IP packets that the host's own stack sends and receives.

mod answers;
mod burst;
mod demux;
mod endpoint;
mod namespace;
mod options;
mod outer;
mod paths;
mod peers;
mod receive;
mod senders;
mod sys;
mod too_big;
mod transmit;
mod unfinished;

pub use endpoint::{Endpoint, EndpointId, TunnelDevice, TunnelPort};
pub use options::TunnelOptions;
pub(crate) use options::option_names;
