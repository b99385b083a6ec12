//! Interfaces and routes that the switch made: the bridge's interface by its alias, the ends of Pods' pairs by theirs, routes by
//! their protocol number.

use super::{CleanupError, Line, line};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// What routes of ours have as their protocol.
const PROTOCOL: u8 = 83;
/// What the aliases of our interfaces begin with: of Pods' ends, and of gateways.
const ALIASES: [&str; 2] = ["sluice:", "sluiced:"];

/// A request, and what is done with each answer to it.
struct Netlink(Socket);

impl Netlink {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends a request and takes all answers, up to the end of a list or an acknowledgement.
    fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut all = Vec::new();
        loop {
            let (datagram, _) = self.0.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(all),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) => return Ok(all),
                    NetlinkPayload::InnerMessage(message) => all.push(message),
                    _ => {}
                }
                // Each message begins at a multiple of four bytes.
                let len = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(len..).filter(|_| len > 0).unwrap_or_default();
            }
        }
    }
}

/// Removes them.
pub(super) fn clean(bridge: &str, dry_run: bool) -> Vec<Line> {
    let failed = |source| CleanupError::Kernel { what: "list interfaces and routes".to_owned(), source };
    let socket = match Netlink::open() {
        Ok(socket) => socket,
        Err(error) => return vec![Err(failed(error))],
    };
    let mut lines = Vec::new();
    // Routes go with their interface, so those of others' interfaces are what is left of them.
    match links(&socket, bridge) {
        Ok(found) => lines.extend(found.into_iter().map(|(message, name)| {
            let what = format!("delete the interface {name}");
            line(what.clone(), dry_run, || delete(&socket, RouteNetlinkMessage::DelLink(message), what))
        })),
        Err(error) => lines.push(Err(failed(error))),
    }
    match routes(&socket) {
        Ok(found) => lines.extend(found.into_iter().map(|(message, to)| {
            let what = format!("delete the route to {to}");
            line(what.clone(), dry_run, || delete(&socket, RouteNetlinkMessage::DelRoute(message), what))
        })),
        Err(error) => lines.push(Err(failed(error))),
    }
    lines
}

fn delete(socket: &Netlink, message: RouteNetlinkMessage, what: String) -> Result<(), CleanupError> {
    match socket.ask(message, NLM_F_ACK) {
        Ok(_) => Ok(()),
        // It went with another one.
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENODEV | nix::libc::ESRCH)) => Ok(()),
        Err(source) => Err(CleanupError::Kernel { what, source }),
    }
}

fn links(socket: &Netlink, bridge: &str) -> io::Result<Vec<(LinkMessage, String)>> {
    let all = socket.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
    let found = all.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => ours(&link, bridge).map(|name| (link.header.index, name)),
        _ => None,
    });
    let request = |(index, name)| {
        let mut message = LinkMessage::default();
        message.header.index = index;
        (message, name)
    };
    Ok(found.map(request).collect())
}

/// The name of an interface that is ours.
fn ours(link: &LinkMessage, bridge: &str) -> Option<String> {
    let (mut name, mut alias) = ("", "");
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text,
            LinkAttribute::IfAlias(text) => alias = text,
            _ => {}
        }
    }
    let is_ours = ALIASES.iter().any(|begin| alias.starts_with(begin)) || (name == bridge && alias.contains("sluice"));
    is_ours.then(|| name.to_owned())
}

fn routes(socket: &Netlink) -> io::Result<Vec<(RouteMessage, String)>> {
    let all = socket.ask(RouteNetlinkMessage::GetRoute(RouteMessage::default()), NLM_F_DUMP)?;
    let found = all.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRoute(route) if is_ours(&route) => Some(route),
        _ => None,
    });
    Ok(found.map(|route| (route.clone(), destination(&route))).collect())
}

fn is_ours(route: &RouteMessage) -> bool {
    route.header.protocol == RouteProtocol::from(PROTOCOL) && route.header.table == RouteHeader::RT_TABLE_MAIN
}

fn destination(route: &RouteMessage) -> String {
    let to = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(address.to_string()),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(address.to_string()),
        _ => None,
    });
    format!("{}/{}", to.as_deref().unwrap_or("default"), route.header.destination_prefix_length)
}
