//! The file of the resolver (`resolv.conf(5)`) as the `dns` of a result.

use super::error::IpamError;
use crate::spec::Dns;
use std::path::Path;

/// Reads the file: `nameserver`, `domain`, `search` (the last one counts) and `options`.
pub(crate) fn read(path: &Path) -> Result<Dns, IpamError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text)),
        Err(source) => Err(IpamError::File { path: path.to_owned(), source }),
    }
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().filter(|l| !l.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().unwrap_or_default(),
            Some("search") => dns.search = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_result_has_a_place_for_is_read() {
        let dns = parse(
            "# a\nnameserver 10.0.0.2\nnameserver fd00::2\nsearch old\ndomain d.example\nsearch a b\noptions ndots:5 rotate\nsortlist x\n;c\nnameserver\n",
        );
        assert_eq!(dns.nameservers, ["10.0.0.2", "fd00::2"]);
        assert_eq!(
            (dns.domain.as_str(), dns.search, dns.options),
            ("d.example", vec!["a".into(), "b".into()], vec!["ndots:5".into(), "rotate".into()])
        );
    }
}
