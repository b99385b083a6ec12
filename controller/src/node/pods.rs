//! The Pods of this node, from the attachments that the switch lists.

use super::network::mac;
use crate::facts::{HostPort, Pod, Protocol};
use crate::pipeline::{Family, LocalPod, ZONE};
use ipnet::IpNet;
use sluice_proto::v1::{Attachment, AttachmentKey, IncomingPort, Network};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What the owner of a Pod's flows begins with.
const POD: &str = "pod:";
/// The label by which the plugin says which of all Pods of its name one is.
const UID: &str = "k8s.uid";

/// What names an attachment.
pub(super) fn key(attachment: &Attachment) -> AttachmentKey {
    let spec = attachment.spec.clone().unwrap_or_default();
    AttachmentKey { network: spec.network, container_id: spec.container_id, ifname: spec.ifname }
}

/// A Pod as its flows are made from it; none while it has no port.
pub(super) fn pod(attachment: &Attachment, network: &Network) -> Option<Pod> {
    let spec = attachment.spec.as_ref()?;
    if attachment.number == 0 {
        return None;
    }
    let nets = spec.addresses.iter().filter_map(|text| text.parse::<IpNet>().ok());
    let addresses: Vec<IpAddr> = nets.map(|net| net.addr()).collect();
    let own = key(attachment);
    let incoming = network.incoming_ports.iter().filter(|port| port.attachment.as_ref() == Some(&own));
    let mut host_ports: Vec<_> = incoming.flat_map(|port| host_ports(port, network, &addresses)).collect();
    host_ports.sort_by_key(|port| (port.protocol, port.incoming, port.to));
    host_ports.dedup();
    Some(Pod { owner: attachment.owner.clone(), port: attachment.number, mac: mac(&spec.mac)?, addresses, host_ports })
}

/// `NAMESPACE/NAME` of a Pod, of the owner of its flows.
pub(super) fn name(owner: &str) -> &str {
    owner.strip_prefix(POD).unwrap_or(owner)
}

/// What a Pod is asked for by ([`Cluster::is_on`](crate::policy::Cluster::is_on)). Its policies are those of the Pod that the runtime
/// attaches, not those of one that had its name before and may still be what the API server was heard to say.
pub(super) fn identity(attachment: &Attachment) -> String {
    let name = name(&attachment.owner);
    match attachment.spec.as_ref().and_then(|spec| spec.labels.get(UID)) {
        Some(uid) => format!("{name}/{uid}"),
        None => name.to_owned(),
    }
}

/// The newest attachment of each Pod. A runtime that could not start a Pod's network tries again, and an older one may still be
/// there: policies are about the Pod, and there is no way to what it was.
pub(super) fn newest(attachments: &[Attachment]) -> Vec<&Attachment> {
    let mut newest: BTreeMap<(&str, Option<String>), &Attachment> = BTreeMap::new();
    let age = |one: &Attachment| (one.created_unix_s, one.number);
    for one in attachments {
        // What is no Pod's stands for itself.
        let own = (!one.owner.starts_with(POD)).then(|| key(one).container_id);
        let known = newest.entry((one.owner.as_str(), own)).or_insert(one);
        if age(one) > age(known) {
            *known = one;
        }
    }
    newest.into_values().collect()
}

/// The connections from and to an address, as filters of the switch's connections.
pub(super) fn connections(address: IpAddr) -> [String; 2] {
    let family = Family::of(address);
    let (ip, src) = (family.ip(), family.src());
    ["", "reply_"].map(|way| format!("zone={ZONE},{ip},{way}{src}={address}"))
}

/// Whether there may be a way to a Pod, by whether its policies are known: while it is held it cannot send, but whoever knows its
/// address could reach it.
pub(super) fn may_be_reached(attachment: &Attachment, knows: impl Fn(&str) -> bool) -> bool {
    !attachment.unconfirmed || knows(&identity(attachment))
}

/// Whether nothing can have been open with it: nobody has let it send, since it was made.
pub(super) const fn is_new(attachment: &Attachment) -> bool {
    attachment.unconfirmed && !attachment.taken_up
}

/// A Pod as policies are about it.
pub(super) fn local(pod: &Pod) -> (Arc<str>, LocalPod) {
    (name(&pod.owner).into(), LocalPod { port: pod.port, addresses: pod.addresses.clone() })
}

/// A port of the host, for the family that it is of.
fn host_ports(port: &IncomingPort, network: &Network, addresses: &[IpAddr]) -> Option<HostPort> {
    let of = port.port.as_ref()?;
    let v6 = of.address.parse().map_or(of.v6, |address: IpAddr| address.is_ipv6());
    let incoming = super::network::addresses(&network.incoming).into_iter().find(|address| address.is_ipv6() == v6)?;
    let to = addresses.iter().copied().find(|address| address.is_ipv6() == v6)?;
    Some(HostPort {
        protocol: Protocol::named(&of.protocol)?,
        incoming: (incoming, u16::try_from(port.incoming_port).ok()?),
        to: (to, u16::try_from(port.container_port).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::v1::{AttachmentSpec, ServicePort};

    fn attachment(number: u32) -> Attachment {
        let spec = AttachmentSpec {
            network: "sluice".to_owned(),
            container_id: "c1".to_owned(),
            ifname: "eth0".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            addresses: vec!["10.244.0.2/24".to_owned(), "fd00::2/64".to_owned()],
            ..AttachmentSpec::default()
        };
        Attachment { spec: Some(spec), number, owner: "pod:a/b".to_owned(), ..Attachment::default() }
    }

    #[test]
    fn a_pod_has_the_host_ports_of_its_own_attachment_and_families() {
        let of = |container_id: &str, v6: bool| IncomingPort {
            port: Some(ServicePort { protocol: "tcp".to_owned(), port: 8080, v6, ..ServicePort::default() }),
            incoming_port: 8080,
            attachment: Some(AttachmentKey { container_id: container_id.to_owned(), ..key(&attachment(1)) }),
            container_port: 80,
        };
        let network = Network {
            incoming: vec!["169.254.77.3".to_owned()],
            incoming_ports: vec![of("c1", false), of("c1", true), of("c2", false)],
            ..Network::default()
        };
        let pod = pod(&attachment(7), &network).unwrap();
        assert_eq!((pod.port, pod.mac, pod.addresses.len()), (7, 0x0200_0000_0001, 2));
        let wanted = HostPort {
            protocol: Protocol::Tcp,
            incoming: ("169.254.77.3".parse().unwrap(), 8080),
            to: ("10.244.0.2".parse().unwrap(), 80),
        };
        assert_eq!(pod.host_ports, [wanted], "there is no incoming address of IPv6");
    }

    #[test]
    fn a_pod_is_its_newest_attachment() {
        let made = |number, created_unix_s| Attachment { created_unix_s, ..attachment(number) };
        let other = Attachment { owner: "pod:a/c".to_owned(), ..attachment(1) };
        let all = [made(7, 20), made(9, 10), other, made(3, 15)];
        assert_eq!(newest(&all).iter().map(|one| one.number).collect::<Vec<_>>(), [7, 1]);
    }

    #[test]
    fn there_is_no_way_to_a_pod_that_is_held_before_its_policies_are_known() {
        let (free, held) = (attachment(7), Attachment { unconfirmed: true, ..attachment(7) });
        assert!(may_be_reached(&free, |_| false), "what is in force stays when the node role starts again");
        assert!(may_be_reached(&held, |pod| pod == "a/b") && !may_be_reached(&held, |_| false));
    }

    #[test]
    fn what_a_start_of_the_switch_has_taken_up_is_not_new() {
        let held = Attachment { unconfirmed: true, ..attachment(7) };
        assert!(is_new(&held) && !is_new(&attachment(7)));
        assert!(!is_new(&Attachment { taken_up: true, ..held }), "its connections go on");
    }

    #[test]
    fn a_pod_is_asked_for_by_its_uid_where_the_runtime_says_that() {
        let mut attachment = attachment(7);
        assert_eq!(identity(&attachment), "a/b");
        attachment.spec.as_mut().unwrap().labels.insert("k8s.uid".to_owned(), "0-1".to_owned());
        assert_eq!(identity(&attachment), "a/b/0-1");
    }

    #[test]
    fn what_has_no_port_is_no_pod_yet() {
        assert_eq!(pod(&attachment(0), &Network::default()), None);
    }
}
