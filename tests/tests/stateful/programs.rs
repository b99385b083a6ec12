//! Programs that are run in a namespace.

use sluice_tests::netns::Netns;
use sluice_tests::programs;
use std::net::IpAddr;

/// What a program prints, which ends with 0.
pub(crate) fn run(netns: &Netns, words: &[&str]) -> String {
    let (code, output) = programs::run(netns, words);
    assert!(code == Some(0), "{words:?} ended with {code:?}:\n{output}");
    output
}

/// Three pings with so much payload, all of which are answered.
pub(crate) fn ping(netns: &Netns, to: IpAddr, len: usize) {
    let (to, len) = (to.to_string(), len.to_string());
    let output = run(netns, &["ping", "-n", "-c", "3", "-i", "0.1", "-W", "5", "-s", &len, &to]);
    assert!(output.contains(" 3 received"), "{output}");
}

/// The hops from the second on that a traceroute shows.
pub(crate) fn traceroute(netns: &Netns, way: &[&str], to: IpAddr) -> Vec<String> {
    let to = to.to_string();
    let words = ["traceroute", "-n", "-q", "1", "-w", "5", "-f", "2", "-m", "5"];
    let output = run(netns, &[&words, way, &[to.as_str()]].concat());
    let hops = output.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
    hops.map(str::to_owned).collect()
}
