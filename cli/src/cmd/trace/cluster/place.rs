//! What the words of a trace between places of a cluster name: Pods, Services, addresses.

use crate::failure::Failure;
use std::net::{IpAddr, SocketAddr};

/// A place, as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// `NAMESPACE/NAME`.
    Pod(String),
    /// `svc:NAMESPACE/NAME`.
    Service(String),
    /// An address.
    Address(IpAddr),
}

/// Whether the words name places of a cluster rather than hosts of a lab. A plain name before an address is a host that sends
/// to it.
pub(in crate::cmd::trace) fn is_meant(words: &[String]) -> bool {
    let [from, to, ..] = words else { return false };
    let plain = |word: &String| !word.contains(['=', ',']) && word != "-";
    let is_place =
        |word: &String| word.contains('/') || parse(word).is_ok_and(|(named, _)| matches!(named, Named::Address(_)));
    words.len() <= 3 && words.iter().all(plain) && (is_place(from) || to.contains('/'))
}

/// A place with the port behind it, if one is said.
pub(super) fn parse(word: &str) -> Result<(Named, Option<u16>), Failure> {
    if let Ok(address) = word.trim_matches(['[', ']']).parse() {
        return Ok((Named::Address(address), None));
    }
    if let Ok(socket) = word.parse::<SocketAddr>() {
        return Ok((Named::Address(socket.ip()), Some(socket.port())));
    }
    let (is_service, rest) = match word.strip_prefix("svc:") {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix("pod:").unwrap_or(word)),
    };
    let (name, port) = match rest.split_once(':') {
        Some((name, port)) => {
            (name, Some(port.parse().map_err(|_| Failure::usage(format!("`{port}` is no port number")))?))
        }
        None => (rest, None),
    };
    match name.split_once('/') {
        Some((namespace, last)) if !namespace.is_empty() && !last.is_empty() && !last.contains('/') => {
            let name = name.to_owned();
            Ok((if is_service { Named::Service(name) } else { Named::Pod(name) }, port))
        }
        _ => Err(Failure::usage(format!("`{word}` is no place of a cluster"))
            .next("NAMESPACE/POD, svc:NAMESPACE/SERVICE, or an address; with :PORT behind the second")),
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "{name}"),
            Self::Service(name) => write!(f, "svc:{name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_services_and_addresses_are_told_apart_with_and_without_ports() {
        let address = |text: &str| Named::Address(text.parse().unwrap());
        for (word, named, port) in [
            ("shop/web-7f9:80", Named::Pod("shop/web-7f9".to_owned()), Some(80)),
            ("svc:shop/web", Named::Service("shop/web".to_owned()), None),
            ("10.0.0.1:53", address("10.0.0.1"), Some(53)),
            ("fd00::1", address("fd00::1"), None),
            ("[fd00::1]:53", address("fd00::1"), Some(53)),
        ] {
            assert_eq!(parse(word).unwrap(), (named, port), "{word}");
        }
        for wrong in ["web", "shop/", "/web", "shop/web:x", "a/b/c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_of_a_lab_and_packets_are_not_meant() {
        let meant = |words: &[&str]| is_meant(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert!(meant(&["10.0.0.1", "shop/b"]) && !meant(&["h1", "192.0.2.1:443", "tcp"]));
        assert!(meant(&["shop/a", "shop/b:80"]) && meant(&["10.0.0.1", "10.0.0.2:80", "udp"]));
        assert!(
            !meant(&["h1", "h2:80"]) && !meant(&["in_port=1,tcp,nw_dst=10.0.0.0/8"]) && !meant(&["h1", "h2", "tcp"])
        );
    }
}
