//! Connections that have to end.

use super::*;
use crate::facts::HostPort;
use crate::services::stale::{Connection, Stale, Which, left_over, stale, stale_host_ports};

/// A Service with a port of UDP for each list of endpoints, with its frontends.
fn dns(protocol: Protocol, frontends: &[&str], endpoints: &[&str]) -> facts::Service {
    let frontend = |text: &&str| {
        let at = at(text);
        Frontend { address: at.address, port: at.port, inside: Scope::Cluster, outside: None, sources: Vec::new() }
    };
    let port = ServicePort {
        name: "dns".to_owned(),
        protocol,
        v6: false,
        frontends: frontends.iter().map(frontend).collect(),
        cluster: endpoints.iter().map(|text| at(text)).collect(),
        local: Vec::new(),
    };
    facts::Service { name: "kube-system/dns".to_owned(), ports: vec![port], affinity_s: None }
}

fn udp(frontends: &[&str], endpoints: &[&str]) -> facts::Service {
    dns(Protocol::Udp, frontends, endpoints)
}

/// What is stale, with everything that is chosen from still serving and nothing else.
fn told(old: Option<&facts::Service>, new: Option<&facts::Service>) -> Vec<(String, Which)> {
    stale(old, new, &BTreeSet::new()).iter().map(short).collect()
}

fn short(stale: &Stale) -> (String, Which) {
    (format!("{}:{}", stale.frontend.0, stale.frontend.1), stale.which)
}

const VIP: &str = "10.96.0.10:53";
const NODE: &str = "169.254.77.3:30053";
const ONE: &str = "10.244.0.1:53";
const TWO: &str = "10.244.0.2:53";

#[test]
fn an_endpoint_that_goes_takes_its_connections_by_each_frontend_with_it() {
    let (old, new) = (udp(&[VIP, NODE], &[ONE, TWO]), udp(&[VIP, NODE], &[TWO]));
    let to = Which::To(at(ONE));
    assert_eq!(told(Some(&old), Some(&new)), [(VIP.to_owned(), to), (NODE.to_owned(), to)]);
    let none = udp(&[VIP], &[]);
    assert_eq!(told(Some(&udp(&[VIP], &[ONE])), Some(&none)), [(VIP.to_owned(), to)]);
}

#[test]
fn an_endpoint_that_still_serves_keeps_its_connections() {
    let (old, new) = (udp(&[VIP], &[ONE, TWO]), udp(&[VIP], &[TWO]));
    assert_eq!(stale(Some(&old), Some(&new), &[(Protocol::Udp, at(ONE))].into()), []);
    assert_eq!(stale(Some(&old), Some(&new), &[(Protocol::Tcp, at(ONE))].into()).len(), 1, "of the same protocol");
}

#[test]
fn a_frontend_or_service_that_goes_takes_all_connections_with_it() {
    let (old, new) = (udp(&[VIP, NODE], &[ONE]), udp(&[VIP], &[ONE]));
    assert_eq!(told(Some(&old), Some(&new)), [(NODE.to_owned(), Which::All)]);
    assert_eq!(told(Some(&old), None), [(VIP.to_owned(), Which::All), (NODE.to_owned(), Which::All)]);
}

#[test]
fn a_port_that_is_renamed_ends_no_connection_of_its_frontend_whose_endpoint_stays() {
    let (old, mut new) = (udp(&[VIP], &[ONE]), udp(&[VIP], &[ONE]));
    new.ports[0].name = "domain".to_owned();
    let all: Vec<_> = told(Some(&old), Some(&new)).into_iter().map(|(_, which)| which).collect();
    assert_eq!(all, [Which::To(at(ONE)), Which::Untranslated], "its endpoints are chosen anew");
}

#[test]
fn what_nobody_translated_ends_when_the_first_endpoint_or_the_frontend_comes() {
    let untranslated = |at: &str| (at.to_owned(), Which::Untranslated);
    assert_eq!(told(Some(&udp(&[VIP], &[])), Some(&udp(&[VIP], &[ONE]))), [untranslated(VIP)]);
    assert_eq!(told(Some(&udp(&[VIP], &[ONE])), Some(&udp(&[VIP, NODE], &[ONE]))), [untranslated(NODE)]);
    assert_eq!(told(None, Some(&udp(&[VIP], &[ONE]))), [untranslated(VIP)]);
    assert_eq!(told(Some(&udp(&[VIP], &[ONE])), Some(&udp(&[VIP], &[ONE, TWO]))), [], "a second one changes nothing");
}

#[test]
fn tcp_is_left_alone_and_sctp_is_not() {
    let tcp = dns(Protocol::Tcp, &[VIP], &[ONE]);
    assert_eq!(told(Some(&tcp), None), []);
    assert_eq!(told(None, Some(&tcp)), []);
    assert_eq!(told(Some(&dns(Protocol::Sctp, &[VIP], &[ONE])), None), [(VIP.to_owned(), Which::All)]);
}

#[test]
fn a_filter_names_the_connections_in_the_switchs_words() {
    let filter = |protocol, frontend: &str, which| {
        let frontend = at(frontend);
        Stale { protocol, frontend: (frontend.address, frontend.port), which }.filter()
    };
    assert_eq!(filter(Protocol::Udp, VIP, Which::All), "zone=65000,udp,nw_dst=10.96.0.10,tp_dst=53");
    assert_eq!(
        filter(Protocol::Sctp, "[fd00:96::a]:53", Which::To(at("[fd00:244::1]:5353"))),
        "zone=65000,sctp6,ipv6_dst=fd00:96::a,tp_dst=53,reply_ipv6_src=fd00:244::1,reply_tp_src=5353"
    );
    assert_eq!(
        filter(Protocol::Udp, VIP, Which::Untranslated),
        "zone=65000,udp,nw_dst=10.96.0.10,tp_dst=53,ct_mark=0/0x10"
    );
}

#[test]
fn after_a_restart_connections_to_what_went_meanwhile_are_found() {
    let service = udp(&[VIP], &[ONE]);
    let serving = [(Protocol::Udp, at(TWO))].into();
    let connection = |protocol, frontend: &str, endpoint: &str| Connection {
        protocol,
        frontend: frontend.parse().unwrap(),
        endpoint: endpoint.parse().unwrap(),
    };
    let gone = "10.244.0.9:53";
    let found = left_over(
        [
            connection(Protocol::Udp, VIP, ONE),
            connection(Protocol::Udp, VIP, TWO),
            connection(Protocol::Udp, VIP, gone),
            connection(Protocol::Udp, VIP, gone),
            connection(Protocol::Tcp, VIP, gone),
            connection(Protocol::Udp, NODE, ONE),
        ],
        [(&service, &serving)],
    );
    let found: Vec<_> = found.iter().map(short).collect();
    assert_eq!(found, [(VIP.to_owned(), Which::To(at(gone))), (NODE.to_owned(), Which::All)]);
}

#[test]
fn host_ports_that_go_take_their_connections_along_and_new_ones_those_that_nobody_answered() {
    let port = |protocol, to: &str| HostPort {
        protocol,
        incoming: ("169.254.77.3".parse().unwrap(), 53),
        to: (to.parse().unwrap(), 53),
    };
    let (one, two) = (port(Protocol::Udp, "10.244.0.2"), port(Protocol::Udp, "10.244.0.3"));
    let tcp = port(Protocol::Tcp, "10.244.0.2");
    let stale = |which| Stale { protocol: Protocol::Udp, frontend: one.incoming, which };
    assert_eq!(stale_host_ports(&[one.clone(), tcp.clone()], &[]), [stale(Which::All)]);
    assert_eq!(stale_host_ports(&[], &[one.clone(), tcp]), [stale(Which::Untranslated)]);
    assert_eq!(
        stale_host_ports(std::slice::from_ref(&one), std::slice::from_ref(&two)),
        [stale(Which::All), stale(Which::Untranslated)]
    );
    assert_eq!(stale_host_ports(std::slice::from_ref(&one), std::slice::from_ref(&one)), []);
}
