//! Tunnel ports: frames to and from other hosts, in UDP or IP packets that the host's own stack sends and receives.

mod endpoint;
mod options;

pub use endpoint::{Endpoint, EndpointId, TunnelDevice, TunnelPort};
pub use options::TunnelOptions;
pub(crate) use options::option_names;
