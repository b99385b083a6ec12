//! Which ports of the host a container's published ports become.
//!
//! Docker leaves it to the driver to choose where the user gave no port of the host (`-p 80`) or several (`-p
//! 8000-8010:80`): it is the first free one, of a range as Docker's own driver takes it. A port is free when no
//! attachment has it and no process of the host listens on it; without the second look, published ports would take
//! connections away from processes of the host.

use super::endpoint::{Published, protocol};
use super::error::DriverError;
use super::wire::{Options, PORT_MAP, PortBinding};
use sluice_proto::v1::Attachment;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// The ports that the driver chooses from.
const FREE: (u16, u16) = (49_153, 65_535);
/// Ports that one container may publish.
const MAX_PUBLISHED: usize = 4096;

/// A port of the host, as somebody has it.
type Taken = (String, Option<IpAddr>, u16);

/// The published ports among a request's options.
///
/// # Errors
/// They are not understood, or too many.
pub(crate) fn asked(options: &Options) -> Result<Vec<PortBinding>, DriverError> {
    let Some(value) = options.get(PORT_MAP).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let bindings: Vec<PortBinding> = serde_json::from_value(value.clone())?;
    if bindings.len() > MAX_PUBLISHED {
        return Err(DriverError::Published(format!("{} is one too many", MAX_PUBLISHED + 1)));
    }
    Ok(bindings)
}

/// The host's ports that other attachments than `own` have.
pub(crate) fn taken(attachments: &[Attachment], own: &str) -> Vec<Taken> {
    let specs = attachments.iter().filter_map(|a| a.spec.as_ref()).filter(|spec| spec.container_id != own);
    specs
        .flat_map(|spec| &spec.port_mappings)
        .filter_map(|mapping| {
            let port = u16::try_from(mapping.host_port).ok()?;
            Some((mapping.protocol.clone(), mapping.host_address.parse().ok(), port))
        })
        .collect()
}

/// Chooses a port of the host for each binding; ones with a port of the host come first, so that none that the user
/// wants is chosen for another.
///
/// # Errors
/// None is free, or the one that is wanted is used.
pub(crate) fn choose(
    bindings: &[PortBinding],
    taken: &[Taken],
    is_used: impl Fn(&'static str, Option<IpAddr>, u16) -> bool,
) -> Result<Vec<Published>, DriverError> {
    let mut order: Vec<&PortBinding> = bindings.iter().collect();
    order.sort_by_key(|binding| binding.host_port == 0);
    let mut all: Vec<Published> = Vec::new();
    for binding in order {
        let protocol = protocol(binding)?;
        let host_address = host_address(binding)?;
        if binding.port == 0 {
            return Err(DriverError::Published("0 is none".to_owned()));
        }
        let (first, last) = match (binding.host_port, binding.host_port_end) {
            (0, _) => FREE,
            (first, last) => (first, last.max(first)),
        };
        let clashes = |port: u16, others: &[Published]| {
            let own = others.iter().map(|p| (p.protocol.as_str(), p.host_address, p.host_port));
            let theirs = taken.iter().map(|(protocol, address, port)| (protocol.as_str(), *address, *port));
            let mut all = own.chain(theirs);
            all.any(|(p, address, n)| p == protocol && n == port && overlap(address, host_address))
        };
        let single = first == last;
        // Of one port that an attachment has, the switch says whose it is.
        let free = |port: &u16| (single || !clashes(*port, &all)) && !is_used(protocol, host_address, *port);
        let Some(host_port) = (first..=last).find(free) else {
            return Err(match single {
                true => DriverError::PortUsed { port: first, protocol },
                false => DriverError::NoPort { protocol, first, last },
            });
        };
        let protocol = protocol.to_owned();
        all.push(Published { protocol, port: binding.port, host_address, host_port });
    }
    Ok(all)
}

fn host_address(binding: &PortBinding) -> Result<Option<IpAddr>, DriverError> {
    if binding.host_ip.is_empty() {
        return Ok(None);
    }
    let problem =
        || DriverError::Published(format!("{} is at `{}`, which is no address", binding.port, binding.host_ip));
    binding.host_ip.parse().map(Some).map_err(|_| problem())
}

/// Whether two addresses of the host, each of which may stand for all of its family or for all, have one in common.
fn overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()),
        _ => true,
    }
}

/// Whether a process of the host listens on a port. A port that cannot be asked for is not.
pub(crate) fn is_used(protocol: &'static str, address: Option<IpAddr>, port: u16) -> bool {
    let addresses = match address {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let used = |address: IpAddr| {
        let address = SocketAddr::new(address, port);
        let result = match protocol {
            "tcp" => TcpListener::bind(address).map(drop),
            "udp" => UdpSocket::bind(address).map(drop),
            _ => Ok(()),
        };
        result.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
    };
    addresses.into_iter().any(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Docker 20.10 sends for `-p 8080:80 -p 80 -p 127.0.0.1:9000-9005:53/udp`.
    const SENT: &str = r#"{"com.docker.network.portmap":[
        {"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":0,"HostPortEnd":0},
        {"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8080},
        {"Proto":17,"IP":"","Port":53,"HostIP":"127.0.0.1","HostPort":9000,"HostPortEnd":9005}]}"#;

    fn bindings() -> Vec<PortBinding> {
        asked(&serde_json::from_str(SENT).unwrap()).unwrap()
    }

    fn texts(all: &[Published]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_that_were_given_stay_and_others_are_the_first_free_ones() {
        let taken = [("udp".to_owned(), None, 9000), ("tcp".to_owned(), None, 9001), ("tcp".to_owned(), None, 49_153)];
        let all = choose(&bindings(), &taken, |_, _, port| port == 49_154).unwrap();
        assert_eq!(texts(&all), ["8080->80/tcp", "127.0.0.1:9001->53/udp", "49155->80/tcp"]);
    }

    #[test]
    fn the_same_port_of_different_addresses_is_free() {
        let taken = [("udp".to_owned(), Some("192.0.2.1".parse().unwrap()), 9000)];
        assert_eq!(texts(&choose(&bindings(), &taken, |_, _, _| false).unwrap())[1], "127.0.0.1:9000->53/udp");
        let taken = [("udp".to_owned(), Some("0.0.0.0".parse().unwrap()), 9000)];
        assert_eq!(texts(&choose(&bindings(), &taken, |_, _, _| false).unwrap())[1], "127.0.0.1:9001->53/udp");
    }

    #[test]
    fn a_port_that_a_process_listens_on_is_refused() {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let at = |address: SocketAddr, protocol| is_used(protocol, Some(address.ip()), address.port());
        assert!(at(tcp.local_addr().unwrap(), "tcp") && at(udp.local_addr().unwrap(), "udp"));
        let port = tcp.local_addr().unwrap().port();
        let binding =
            PortBinding { proto: 6, port: 80, host_port: port, host_port_end: port, ..PortBinding::default() };
        let error = choose(&[binding], &[], is_used).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port}/tcp of the host is used")), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (binding, said) in [
            (r#"{"Proto":1,"Port":80,"HostPort":80}"#, "IP protocol 1"),
            (r#"{"Proto":6,"Port":0,"HostPort":80}"#, "0 is none"),
            (r#"{"Proto":6,"Port":80,"HostPort":80,"HostIP":"x"}"#, "`x`"),
        ] {
            let bindings: Vec<PortBinding> = serde_json::from_str(&format!("[{binding}]")).unwrap();
            let error = choose(&bindings, &[], |_, _, _| false).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn when_all_ports_of_a_range_are_used_the_range_is_told() {
        let bindings = bindings().split_off(2);
        let error = choose(&bindings, &[], |_, _, _| true).unwrap_err().to_string();
        assert!(error.contains("udp ports 9000 to 9005"), "{error}");
    }
}
