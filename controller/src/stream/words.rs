//! The words of the stream: [`facts::policy`](crate::facts::policy) as messages, and back.
//!
//! What is written reads back as it was. What is read is looked at in full: a message that says something that this program does
//! not know is an error as a whole, since a policy of which a part is passed over is another policy.

use crate::facts::Protocol;
use crate::facts::policy::{
    Action, Direction, Group, GroupKey, Member, Peer, Policy, PolicyKind, PolicyName, Port, Rule, Tier, Update,
};
use ipnet::IpNet;
use prost::Message;
use sha2::{Digest as _, Sha256};
use sluice_proto::v1::{
    self, GroupMember, GroupUpdate, NamedPort, PolicyAction, PolicyDirection, PolicyNet, PolicyPeers, PolicyPort,
    PolicyPortRange, PolicyPorts, PolicyRule, PolicyTier, policy_peer, policy_port, policy_update,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Why a message cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Something is not said.
    #[error("a message does not say its {0}")]
    Missing(&'static str),
    /// Something is said that is not known here.
    #[error("a message has {what} {value}, which is not known here; is the cluster role of a newer version?")]
    Unknown {
        /// What of it.
        what: &'static str,
        /// As it is there.
        value: String,
    },
}

fn unknown(what: &'static str, value: impl ToString) -> WordError {
    WordError::Unknown { what, value: value.to_string() }
}

/// What tells whether a policy or group is still the same.
pub type Digest = [u8; 16];

fn digest(message: &impl Message) -> Digest {
    let whole = Sha256::digest(message.encode_to_vec());
    let mut first = Digest::default();
    first.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    first
}

/// Of a policy.
#[must_use]
pub fn policy_digest(policy: &Policy) -> Digest {
    digest(&write_policy(policy))
}

/// Of a group.
#[must_use]
pub fn group_digest(key: &GroupKey, group: &Group) -> Digest {
    digest(&write_group(key, group))
}

/// A name as a message.
#[must_use]
pub fn write_name(name: &PolicyName) -> v1::PolicyName {
    let kind = match name.kind {
        PolicyKind::NetworkPolicy => v1::PolicyKind::NetworkPolicy,
        PolicyKind::ClusterNetworkPolicy => v1::PolicyKind::ClusterNetworkPolicy,
        PolicyKind::AdminNetworkPolicy => v1::PolicyKind::AdminNetworkPolicy,
        PolicyKind::BaselineAdminNetworkPolicy => v1::PolicyKind::BaselineAdminNetworkPolicy,
    };
    v1::PolicyName { kind: kind.into(), namespace: name.namespace.clone(), name: name.name.clone() }
}

/// A name of a message.
///
/// # Errors
/// [`WordError`] for a kind that is not known.
pub fn read_name(name: v1::PolicyName) -> Result<PolicyName, WordError> {
    let kind = match name.kind() {
        v1::PolicyKind::NetworkPolicy => PolicyKind::NetworkPolicy,
        v1::PolicyKind::ClusterNetworkPolicy => PolicyKind::ClusterNetworkPolicy,
        v1::PolicyKind::AdminNetworkPolicy => PolicyKind::AdminNetworkPolicy,
        v1::PolicyKind::BaselineAdminNetworkPolicy => PolicyKind::BaselineAdminNetworkPolicy,
        v1::PolicyKind::Unspecified => return Err(unknown("the kind of a policy", name.kind)),
    };
    Ok(PolicyName { kind, namespace: name.namespace, name: name.name })
}

fn write_direction(direction: Direction) -> i32 {
    match direction {
        Direction::Ingress => PolicyDirection::Ingress.into(),
        Direction::Egress => PolicyDirection::Egress.into(),
    }
}

fn read_direction(number: i32) -> Result<Direction, WordError> {
    match PolicyDirection::try_from(number) {
        Ok(PolicyDirection::Ingress) => Ok(Direction::Ingress),
        Ok(PolicyDirection::Egress) => Ok(Direction::Egress),
        _ => Err(unknown("the direction", number)),
    }
}

const fn number(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn read_protocol(number: u32) -> Result<Protocol, WordError> {
    Protocol::numbered(number).ok_or_else(|| unknown("the protocol", number))
}

fn read_port(number: u32) -> Result<u16, WordError> {
    u16::try_from(number).map_err(|_| unknown("the port", number))
}

fn read_net(text: &str) -> Result<IpNet, WordError> {
    text.parse().map_err(|_| unknown("the network", text))
}

fn write_rule(rule: &Rule) -> PolicyRule {
    let action = match rule.action {
        Action::Accept => PolicyAction::Accept,
        Action::Deny => PolicyAction::Deny,
        Action::Pass => PolicyAction::Pass,
    };
    let peer = |peer: &Peer| {
        let peer = match peer {
            Peer::Group(key) => policy_peer::Peer::Group(key.0.to_string()),
            Peer::Net { net, except } => policy_peer::Peer::Net(PolicyNet {
                net: net.to_string(),
                except: except.iter().map(ToString::to_string).collect(),
            }),
        };
        v1::PolicyPeer { peer: Some(peer) }
    };
    let port = |port: &Port| match port {
        Port::All(protocol) => PolicyPort { protocol: number(*protocol), port: None },
        Port::Range(protocol, first, last) => {
            let range = PolicyPortRange { first: (*first).into(), last: (*last).into() };
            PolicyPort { protocol: number(*protocol), port: Some(policy_port::Port::Range(range)) }
        }
        Port::Named(protocol, name) => {
            PolicyPort { protocol: protocol.map_or(0, number), port: Some(policy_port::Port::Name(name.clone())) }
        }
    };
    PolicyRule {
        direction: write_direction(rule.direction),
        index: rule.index,
        name: rule.name.clone(),
        action: action.into(),
        peers: rule.peers.as_ref().map(|peers| PolicyPeers { peers: peers.iter().map(peer).collect() }),
        ports: rule.ports.as_ref().map(|ports| PolicyPorts { ports: ports.iter().map(port).collect() }),
    }
}

fn read_rule(rule: PolicyRule) -> Result<Rule, WordError> {
    let action = match rule.action() {
        PolicyAction::Accept => Action::Accept,
        PolicyAction::Deny => Action::Deny,
        PolicyAction::Pass => Action::Pass,
        PolicyAction::Unspecified => return Err(unknown("the action", rule.action)),
    };
    let peer = |peer: v1::PolicyPeer| match peer.peer.ok_or(WordError::Missing("peer"))? {
        policy_peer::Peer::Group(key) => Ok(Peer::Group(GroupKey(key.into()))),
        policy_peer::Peer::Net(PolicyNet { net, except }) => {
            let except = except.iter().map(|net| read_net(net)).collect::<Result<_, _>>()?;
            Ok(Peer::Net { net: read_net(&net)?, except })
        }
    };
    let port = |port: PolicyPort| match port.port {
        None => Ok(Port::All(read_protocol(port.protocol)?)),
        Some(policy_port::Port::Range(PolicyPortRange { first, last })) => {
            Ok(Port::Range(read_protocol(port.protocol)?, read_port(first)?, read_port(last)?))
        }
        Some(policy_port::Port::Name(name)) => {
            let protocol = if port.protocol == 0 { None } else { Some(read_protocol(port.protocol)?) };
            Ok(Port::Named(protocol, name))
        }
    };
    Ok(Rule {
        direction: read_direction(rule.direction)?,
        index: rule.index,
        name: rule.name,
        action,
        peers: rule.peers.map(|peers| peers.peers.into_iter().map(peer).collect()).transpose()?,
        ports: rule.ports.map(|ports| ports.ports.into_iter().map(port).collect()).transpose()?,
    })
}

fn write_policy(policy: &Policy) -> v1::Policy {
    let tier = match policy.tier {
        Tier::Admin => PolicyTier::Admin,
        Tier::Network => PolicyTier::Network,
        Tier::Baseline => PolicyTier::Baseline,
    };
    v1::Policy {
        name: Some(write_name(&policy.name)),
        generation: policy.generation,
        tier: tier.into(),
        priority: policy.priority.into(),
        subject: policy.subject.0.to_string(),
        isolates: policy.isolates.iter().copied().map(write_direction).collect(),
        is_audit: policy.is_audit,
        logs: policy.logs,
        rules: policy.rules.iter().map(write_rule).collect(),
    }
}

fn read_policy(policy: v1::Policy) -> Result<Policy, WordError> {
    let tier = match policy.tier() {
        PolicyTier::Admin => Tier::Admin,
        PolicyTier::Network => Tier::Network,
        PolicyTier::Baseline => Tier::Baseline,
        PolicyTier::Unspecified => return Err(unknown("the tier", policy.tier)),
    };
    Ok(Policy {
        name: read_name(policy.name.ok_or(WordError::Missing("name"))?)?,
        generation: policy.generation,
        tier,
        priority: u16::try_from(policy.priority).map_err(|_| unknown("the priority", policy.priority))?,
        subject: GroupKey(policy.subject.into()),
        isolates: policy.isolates.into_iter().map(read_direction).collect::<Result<_, _>>()?,
        is_audit: policy.is_audit,
        logs: policy.logs,
        rules: policy.rules.into_iter().map(read_rule).collect::<Result<_, _>>()?,
    })
}

fn write_member(name: &str, member: &Member) -> GroupMember {
    let bytes = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let port = |(name, protocol, port): &(String, Protocol, u16)| NamedPort {
        name: name.clone(),
        protocol: number(*protocol),
        port: (*port).into(),
    };
    GroupMember {
        name: name.to_owned(),
        node: member.node.to_string(),
        addresses: member.addresses.iter().map(bytes).collect(),
        ports: member.ports.iter().map(port).collect(),
    }
}

fn read_member(member: GroupMember) -> Result<(Arc<str>, Arc<Member>), WordError> {
    let address = |bytes: Vec<u8>| {
        let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from))
            .map_err(|_| unknown("an address of bytes:", bytes.len()))
    };
    let port = |port: NamedPort| Ok((port.name, read_protocol(port.protocol)?, read_port(port.port)?));
    let facts = Member {
        node: member.node.into(),
        addresses: member.addresses.into_iter().map(address).collect::<Result<_, _>>()?,
        ports: member.ports.into_iter().map(port).collect::<Result<_, WordError>>()?,
    };
    Ok((member.name.into(), Arc::new(facts)))
}

fn write_group(key: &GroupKey, group: &Group) -> GroupUpdate {
    GroupUpdate {
        key: key.0.to_string(),
        members: group.members.iter().map(|(name, member)| write_member(name, member)).collect(),
        gone: Vec::new(),
    }
}

/// A change as messages of at most about `size` bytes each: one message, or several for a group with many members. A single
/// policy or member is never taken apart.
pub(crate) fn write(update: &Update, size: usize) -> Vec<v1::PolicyUpdate> {
    use policy_update::Update as Word;
    let words = match update {
        Update::Policy(_, Some(policy)) => vec![Word::Policy(write_policy(policy))],
        Update::Policy(name, None) => vec![Word::PolicyGone(write_name(name))],
        Update::GroupGone(key) => vec![Word::GroupGone(key.0.to_string())],
        Update::Group(key, group) => {
            let chunks = chunks(key, write_group(key, group), size);
            // What the first one does not have is put in by those after it.
            let word = |(at, chunk)| if at == 0 { Word::Group(chunk) } else { Word::Members(chunk) };
            chunks.into_iter().enumerate().map(word).collect()
        }
        Update::Members(key, members) => {
            let put = members.iter().filter_map(|(name, member)| Some(write_member(name, member.as_ref()?)));
            let gone = members.iter().filter(|(_, member)| member.is_none()).map(|(name, _)| name.to_string());
            let all = GroupUpdate { key: key.0.to_string(), members: put.collect(), gone: gone.collect() };
            chunks(key, all, size).into_iter().map(Word::Members).collect()
        }
    };
    words.into_iter().map(|word| v1::PolicyUpdate { update: Some(word) }).collect()
}

/// The same in pieces; at least one.
fn chunks(key: &GroupKey, all: GroupUpdate, size: usize) -> Vec<GroupUpdate> {
    let empty = || GroupUpdate { key: key.0.to_string(), ..GroupUpdate::default() };
    let mut chunks = vec![empty()];
    let mut used = 0_usize;
    let mut room = |chunks: &mut Vec<GroupUpdate>, len: usize| {
        used = used.saturating_add(len);
        if used > size && used > len {
            chunks.push(empty());
            used = len;
        }
    };
    for member in all.members {
        room(&mut chunks, member.encoded_len());
        if let Some(last) = chunks.last_mut() {
            last.members.push(member);
        }
    }
    for name in all.gone {
        room(&mut chunks, name.len());
        if let Some(last) = chunks.last_mut() {
            last.gone.push(name);
        }
    }
    chunks
}

/// A change of a message.
///
/// # Errors
/// [`WordError`] for what is not known here.
pub fn read(update: v1::PolicyUpdate) -> Result<Update, WordError> {
    use policy_update::Update as Word;
    let members = |members: Vec<GroupMember>| members.into_iter().map(read_member).collect::<Result<Vec<_>, _>>();
    Ok(match update.update.ok_or(WordError::Missing("change"))? {
        Word::Policy(policy) => {
            let policy = read_policy(policy)?;
            Update::Policy(policy.name.clone(), Some(Arc::new(policy)))
        }
        Word::PolicyGone(name) => Update::Policy(read_name(name)?, None),
        Word::Group(group) => {
            let members = members(group.members)?.into_iter().collect();
            Update::Group(GroupKey(group.key.into()), Group { members })
        }
        Word::Members(group) => {
            let mut all: BTreeMap<_, _> = group.gone.into_iter().map(|name| (Arc::from(name), None)).collect();
            all.extend(members(group.members)?.into_iter().map(|(name, member)| (name, Some(member))));
            Update::Members(GroupKey(group.key.into()), all)
        }
        Word::GroupGone(key) => Update::GroupGone(GroupKey(key.into())),
    })
}
