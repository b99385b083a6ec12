//! The connections that the switch kept while the node role was away.

use crate::facts::Protocol;
use crate::program::{Switch, SwitchError};
use crate::services::stale::{Connection, translated};
use sluice_proto::v1::{self, ConnectionTuple};
use std::net::{IpAddr, SocketAddr};

/// Those that an endpoint was chosen for.
///
/// # Errors
/// [`SwitchError`].
pub(super) async fn kept(switch: &Switch) -> Result<Vec<Connection>, SwitchError> {
    Ok(switch.connections(&translated()).await?.iter().filter_map(connection).collect())
}

fn connection(listed: &v1::Connection) -> Option<Connection> {
    let protocol = Protocol::numbered(listed.proto)?;
    let (original, reply): (&ConnectionTuple, &ConnectionTuple) = (listed.original.as_ref()?, listed.reply.as_ref()?);
    let end =
        |address: &str, port: u32| Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, u16::try_from(port).ok()?));
    Some(Connection {
        protocol,
        frontend: end(&original.dst, original.dst_port)?,
        endpoint: end(&reply.src, reply.src_port)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_from_the_frontend_to_the_endpoint() {
        let tuple = |src: &str, src_port, dst: &str, dst_port| {
            let (src, dst) = (src.to_owned(), dst.to_owned());
            Some(ConnectionTuple { src, dst, src_port, dst_port, ..ConnectionTuple::default() })
        };
        let listed = v1::Connection {
            proto: 17,
            original: tuple("10.244.0.2", 5000, "10.96.0.10", 53),
            reply: tuple("10.244.1.3", 5353, "10.244.0.2", 5000),
            ..v1::Connection::default()
        };
        let wanted = Connection {
            protocol: Protocol::Udp,
            frontend: "10.96.0.10:53".parse().unwrap(),
            endpoint: "10.244.1.3:5353".parse().unwrap(),
        };
        assert_eq!(connection(&listed), Some(wanted));
        assert_eq!(connection(&v1::Connection { proto: 1, ..listed }), None);
    }
}
