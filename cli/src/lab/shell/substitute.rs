//! The names of nodes in a command of a host, which become addresses there.

use crate::lab::topology::Topology;
use ipnet::IpNet;
use std::net::IpAddr;

/// A command with addresses where it has names of nodes: words that are a name, or `NAME:PORT`, or have the name where a
/// URL or `USER@` has it. Words with quotes or other signs of the shell stay as they are, as do those where a command or
/// a file stands.
pub(super) fn addresses(command: &str, node: &str, topology: &Topology) -> String {
    let mut text = String::with_capacity(command.len());
    let mut rest = command;
    // The first word, like one behind a sign, is a command.
    let mut is_argument = false;
    while let Some(length) = rest.chars().next().map(|_| piece(rest)) {
        let (piece, behind) = rest.split_at(length);
        rest = behind;
        if piece.starts_with(is_sign) {
            is_argument = false;
        } else if !piece.starts_with(char::is_whitespace) {
            let plain = is_argument && !piece.contains(['\'', '"', '\\', '$', '`']);
            is_argument = true;
            if let Some(word) = plain.then(|| addressed(piece, node, topology)).flatten() {
                text.push_str(&word);
                continue;
            }
        }
        text.push_str(piece);
    }
    text
}

/// What ends a word and is none.
fn is_sign(c: char) -> bool {
    matches!(c, '|' | '&' | ';' | '<' | '>' | '(' | ')' | '\n')
}

/// The bytes of the first piece of a text: a sign, a run of white space, or a word with what is quoted in it.
fn piece(text: &str) -> usize {
    let mut chars = text.char_indices();
    let Some((_, first)) = chars.next() else { return 0 };
    if is_sign(first) {
        return first.len_utf8();
    }
    if first.is_whitespace() {
        return text.find(|c: char| !c.is_whitespace() || is_sign(c)).unwrap_or(text.len());
    }
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', None | Some('"')) => escaped = true,
            (_, Some(open)) => quote = Some(open).filter(|open| *open != c),
            ('\'' | '"', None) => quote = Some(c),
            (_, None) if c.is_whitespace() || is_sign(c) => return at,
            (_, None) => {}
        }
    }
    text.len()
}

/// A word with an address for the name in it, if there is one.
fn addressed(word: &str, node: &str, topology: &Topology) -> Option<String> {
    let in_url = word.find("://").map(|at| at + 3);
    let start = in_url.or_else(|| word.find('@').map(|at| at + 1)).unwrap_or(0);
    let (head, rest) = word.split_at(start);
    let (name, tail) = rest.split_at(rest.find([':', '/']).unwrap_or(rest.len()));
    // What has a slash and is no URL is a path.
    if tail.starts_with('/') && in_url.is_none() {
        return None;
    }
    Some(match address(topology, node, name)? {
        IpAddr::V6(ip) if in_url.is_some() || !tail.is_empty() => format!("{head}[{ip}]{tail}"),
        ip => format!("{head}{ip}{tail}"),
    })
}

/// The address of a node that another one is to use: in a network of both, else of an IP version of both, else its first.
fn address(topology: &Topology, from: &str, to: &str) -> Option<IpAddr> {
    let (own, all) = (nets(topology, from), nets(topology, to));
    let near = all.iter().find(|net| own.iter().any(|own| own.contains(&net.addr())));
    let alike = || all.iter().find(|net| own.iter().any(|own| own.addr().is_ipv4() == net.addr().is_ipv4()));
    near.or_else(alike).or(all.first()).map(IpNet::addr)
}

/// The addresses of a node, in the order of its interfaces.
pub(super) fn nets(topology: &Topology, node: &str) -> Vec<IpNet> {
    let hosts = topology.hosts.iter().filter(|host| host.name == node).flat_map(|host| &host.interfaces);
    let routers = topology.routers.iter().filter(|router| router.name == node).flat_map(|router| &router.interfaces);
    let ends = topology.links.iter().flat_map(|link| link.ends.iter().zip(link.underlay.iter().flatten()));
    let stacks = ends.filter(|(end, _)| end.node() == node).flat_map(|(_, own)| &own.addresses);
    let addresses = hosts.flat_map(|i| &i.addresses).chain(routers.flat_map(|i| &i.addresses)).chain(stacks);
    addresses.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::super::office;
    use super::*;
    use crate::lab::topology::parse;

    #[test]
    fn names_become_addresses_where_an_argument_stands() {
        let office = office();
        let is = |command: &str, wanted: &str| assert_eq!(addresses(command, "h1", &office), wanted, "{command}");
        is("ping -c 1 h2", "ping -c 1 10.0.10.12");
        is("curl -s http://web:80/h2 web", "curl -s http://10.0.20.80:80/h2 10.0.20.80");
        is("ssh root@h2 ; nc h2:22 80", "ssh root@10.0.10.12 ; nc 10.0.10.12:22 80");
        // The nearest address of a router.
        is("ping r1", "ping 10.0.10.1");
        is("h2 h2", "h2 10.0.10.12");
        is("echo 'h2 h2' \"h2\" \\h2 h20 h2/x >h2 | h2", "echo 'h2 h2' \"h2\" \\h2 h20 h2/x >h2 | h2");
        is("echo \"it's h2\" h2", "echo \"it's h2\" 10.0.10.12");
        is("echo 'open h2", "echo 'open h2");
        is("s1  é\th2", "s1  é\t10.0.10.12");
    }

    #[test]
    fn an_ipv6_address_has_brackets_where_a_port_follows() {
        let six = "lab: six\ndefaults: {subnet6: \"fd00::/64\"}\nlinks: [[h1, s1], [h2, s1]]\n";
        let mut six = parse(six, "six.yml").unwrap();
        six.hosts.iter_mut().flat_map(|h| &mut h.interfaces).for_each(|i| i.addresses.retain(|a| a.addr().is_ipv6()));
        assert_eq!(addresses("nc h2", "h1", &six), "nc fd00::2");
        assert_eq!(addresses("curl http://h2/", "h1", &six), "curl http://[fd00::2]/");
    }
}
