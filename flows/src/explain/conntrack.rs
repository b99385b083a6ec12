//! What connection tracking would say of a traced packet: the state comes from a script, the rest is what the `ct`
//! action asks for, and address translation is played on the packet, as in OVS's `ofproto/trace`. Where there is a
//! tracker and no script, it is the tracker that says all of this ([`CtKnown`]).

use crate::action::{Nat, NatDirection};
use crate::datapath::{DpAction, DpCt, Resume};
use crate::field::{ETH_TYPE_IPV6, Prereq};
use crate::key::{CT_DNAT, CT_EST, CT_INV, CT_NEW, CT_REL, CT_RPL, CT_SNAT, CT_TRK, FlowKey, FlowMask, Slot, slot};
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The flags of a connection's state, by name.
const FLAGS: [(&str, u8); 8] = [
    ("new", CT_NEW),
    ("est", CT_EST),
    ("rel", CT_REL),
    ("rpl", CT_RPL),
    ("inv", CT_INV),
    ("trk", CT_TRK),
    ("snat", CT_SNAT),
    ("dnat", CT_DNAT),
];

/// What connection tracking says of the state of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtNext(u8);

/// What a tracker says of a packet that it is asked about and not given.
#[derive(Clone, Debug)]
pub enum CtKnown {
    /// The packet is of this connection.
    Connection {
        /// The packet as it comes back, with mark and label as they will be, translated if that was asked for.
        key: Box<FlowKey>,
        /// The connection in words.
        told: String,
    },
    /// The packet is of no connection.
    New,
    /// That depends on what a flow does not say.
    Unsaid(&'static str),
}

impl Default for CtNext {
    /// A new connection.
    fn default() -> Self {
        Self(CT_TRK | CT_NEW)
    }
}

impl CtNext {
    /// The state that a key has.
    pub(super) fn of(key: &FlowKey) -> Self {
        Self(key.get(slot::CT_STATE) as u8)
    }

    /// The bits of [`slot::CT_STATE`].
    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl Display for CtNext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0");
        }
        let set = FLAGS.iter().filter(|(_, bit)| self.0 & bit != 0);
        set.enumerate().try_for_each(|(n, (name, _))| write!(f, "{}{name}", if n == 0 { "" } else { "|" }))
    }
}

/// Why a text is no connection state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CtNextError {
    /// A word is none of the flags.
    #[error("`{0}` is no connection state: new, est, rel, rpl, inv, trk, snat and dnat are, with commas between them")]
    Unknown(String),
    /// Without `trk` there is nothing to say.
    #[error("a state without `trk` has no other flag: say trk,{0}")]
    Untracked(String),
    /// An invalid packet has no connection.
    #[error("beside `inv` only `trk` can be said")]
    Invalid,
    /// A connection is new or it is not.
    #[error("`new` excludes `{0}`")]
    New(&'static str),
}

impl FromStr for CtNext {
    type Err = CtNextError;

    fn from_str(text: &str) -> Result<Self, CtNextError> {
        let words = text.split([',', ' ', '|']).map(str::trim).filter(|word| !word.is_empty());
        let mut bits = 0;
        for word in words {
            let (_, bit) =
                FLAGS.iter().find(|(name, _)| *name == word).ok_or_else(|| CtNextError::Unknown(word.to_owned()))?;
            bits |= bit;
        }
        let has = |bit| bits & bit != 0;
        match bits {
            _ if bits != 0 && !has(CT_TRK) => Err(CtNextError::Untracked(text.to_owned())),
            _ if has(CT_INV) && bits & !(CT_INV | CT_TRK) != 0 => Err(CtNextError::Invalid),
            _ if has(CT_NEW) && has(CT_EST) => Err(CtNextError::New("est")),
            _ if has(CT_NEW) && has(CT_RPL) => Err(CtNextError::New("rpl")),
            _ => Ok(Self(bits)),
        }
    }
}

/// What the tracker is asked just before the packet goes on as `resumes[index]`.
pub(super) fn asked(actions: &[DpAction], index: u32) -> Option<&DpCt> {
    let mut last = None;
    for action in actions {
        match action {
            DpAction::Ct(ct) => last = Some(&**ct),
            DpAction::Recirculate(other) if *other == index => return last,
            DpAction::Clone(list) => {
                if let Some(ct) = asked(list, index) {
                    return Some(ct);
                }
            }
            DpAction::CheckPktLen { larger, otherwise, .. } => {
                if let Some(ct) = asked(larger, index).or_else(|| asked(otherwise, index)) {
                    return Some(ct);
                }
            }
            _ => {}
        }
    }
    None
}

/// The packet as it comes back from the tracker.
pub(super) struct Answer {
    /// Its key.
    pub(super) key: FlowKey,
    /// Lines that tell of address translation; empty where there is none.
    pub(super) told: String,
}

/// What becomes of the packet when a tracker knows its connection.
pub(super) fn known(before: &FlowKey, key: FlowKey, connection: &str) -> Answer {
    let mut told = format!("Connection: {connection}\n");
    let (old, new) = (flow_of(before), flow_of(&key));
    if old != new {
        told += &format!(
            "Replacing src/dst IP/ports as the connection has it:\n Initial flow: {old}\n Modified flow: {new}\n"
        );
    }
    Answer { key, told }
}

/// What becomes of the packet of `resume` when the tracker is asked for `ct` and finds the state `next`.
pub(super) fn answer(resume: &Resume, ct: Option<&DpCt>, next: CtNext) -> Answer {
    let mut key = resume.key;
    let mut told = String::new();
    key.set(slot::CT_STATE, next.bits().into());
    key.set(slot::CT_ZONE, resume.ct_zone.unwrap_or(0).into());
    let Some(ct) = ct else {
        return Answer { key, told };
    };
    if next.bits() & (CT_TRK | CT_INV) == CT_TRK {
        remember_tuple(&mut key, next.bits() & CT_RPL != 0);
    }
    if let Some((value, mask)) = ct.mark {
        key.set_masked(slot::CT_MARK, value.into(), mask.into());
    }
    if let Some((value, mask)) = ct.label {
        key.set_masked(slot::CT_LABEL, value, mask);
    }
    if let Some(nat) = ct.nat.filter(|nat| nat.direction.is_some()) {
        let before = flow_of(&key);
        translate(&mut key, &nat);
        told = format!(
            "Replacing src/dst IP/ports to simulate NAT:\n Initial flow: {before}\n Modified flow: {}\n",
            flow_of(&key)
        );
    }
    Answer { key, told }
}

/// The slots of addresses and ports: of the packet, and of the first packet of its connection.
fn tuple(key: &FlowKey) -> [[Slot; 2]; 4] {
    let [src, dst] = addresses(key);
    let v6 = key.get(slot::ETH_TYPE) as u16 == ETH_TYPE_IPV6;
    let (first_src, first_dst) =
        if v6 { (slot::CT_IPV6_SRC, slot::CT_IPV6_DST) } else { (slot::CT_NW_SRC, slot::CT_NW_DST) };
    [[src, first_src], [dst, first_dst], [slot::TP_SRC, slot::CT_TP_SRC], [slot::TP_DST, slot::CT_TP_DST]]
}

fn addresses(key: &FlowKey) -> [Slot; 2] {
    match key.get(slot::ETH_TYPE) as u16 {
        ETH_TYPE_IPV6 => [slot::IPV6_SRC, slot::IPV6_DST],
        _ => [slot::IP_SRC, slot::IP_DST],
    }
}

/// The packet is the first of its connection, or, for a reply, goes the other way than that one did.
fn remember_tuple(key: &mut FlowKey, is_reply: bool) {
    if !Prereq::Ip.holds(key, &mut { FlowMask::ZERO }) {
        return;
    }
    let [[src, first_src], [dst, first_dst], [tp_src, first_tp_src], [tp_dst, first_tp_dst]] = tuple(key);
    for (own, other, first) in
        [(src, dst, first_src), (dst, src, first_dst), (tp_src, tp_dst, first_tp_src), (tp_dst, tp_src, first_tp_dst)]
    {
        let value = key.get(if is_reply { other } else { own });
        key.set(first, value);
    }
    let proto = key.get(slot::IP_PROTO);
    key.set(slot::CT_NW_PROTO, proto);
}

/// Gives the packet the first address and the first port that `nat` allows.
fn translate(key: &mut FlowKey, nat: &Nat) {
    let [src, dst] = addresses(key);
    let (address, port) = match nat.direction {
        Some(NatDirection::Src) => (src, slot::TP_SRC),
        Some(NatDirection::Dst) => (dst, slot::TP_DST),
        None => return,
    };
    match nat.addresses {
        Some((IpAddr::V4(first), _)) if address.bits == 32 => key.set(address, first.to_bits().into()),
        Some((IpAddr::V6(first), _)) if address.bits == 128 => key.set(address, first.to_bits()),
        _ => {}
    }
    if let Some((first, _)) = nat.ports {
        key.set(port, first.into());
    }
}

/// Addresses and ports of a packet.
fn flow_of(key: &FlowKey) -> String {
    let [src, dst] = addresses(key);
    let show = |slot: Slot| -> IpAddr {
        match slot.bits {
            128 => Ipv6Addr::from_bits(key.get(slot)).into(),
            _ => Ipv4Addr::from_bits(key.get(slot) as u32).into(),
        }
    };
    let names = if src.bits == 128 { ["ipv6_src", "ipv6_dst"] } else { ["nw_src", "nw_dst"] };
    let (tp_src, tp_dst) = (key.get(slot::TP_SRC), key.get(slot::TP_DST));
    format!("{}={},tp_src={tp_src},{}={},tp_dst={tp_dst}", names[0], show(src), names[1], show(dst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_as_ovs_reads_them_and_print_as_it_prints_them() {
        for (text, shown) in [
            ("trk,new", "new|trk"),
            ("trk,est", "est|trk"),
            ("trk rpl est snat", "est|rpl|trk|snat"),
            ("trk,inv", "inv|trk"),
            ("", "0"),
        ] {
            assert_eq!(text.parse::<CtNext>().unwrap().to_string(), shown);
        }
        assert_eq!(CtNext::default().to_string(), "new|trk");
    }

    #[test]
    fn states_that_cannot_be_are_refused() {
        for (text, error) in [
            ("foo", "`foo` is no connection state"),
            ("est", "say trk,est"),
            ("trk,inv,new", "only `trk`"),
            ("trk,new,est", "`new` excludes `est`"),
            ("trk,new,rpl", "`new` excludes `rpl`"),
        ] {
            let said = text.parse::<CtNext>().unwrap_err().to_string();
            assert!(said.contains(error), "{text}: {said}");
        }
    }

    fn ct(nat: Option<Nat>) -> DpCt {
        DpCt { commit: true, force: false, zone: 9, mark: Some((5, 0xff)), label: None, nat, alg: None, owner: None }
    }

    #[test]
    fn what_is_asked_for_an_index_stands_before_it() {
        let asks = |mark| DpAction::Ct(Box::new(DpCt { mark: Some((mark, 1)), ..ct(None) }));
        let copy = DpAction::Clone([asks(2), DpAction::Recirculate(1)].into());
        let actions = [asks(1), DpAction::Recirculate(0), copy, asks(3), DpAction::Recirculate(2)];
        let marks = [0, 1, 2, 3].map(|index| asked(&actions, index).and_then(|ct| ct.mark).map(|(mark, _)| mark));
        assert_eq!(marks, [Some(1), Some(2), Some(3), None]);
    }

    #[test]
    fn the_answer_has_zone_mark_tuple_and_the_first_address_of_the_translation() {
        let mut key = FlowKey::ZERO;
        key.set(slot::ETH_TYPE, 0x0800);
        key.set(slot::IP_PROTO, 6);
        key.set(slot::IP_SRC, 0x0909_0909);
        let resume = Resume {
            tunnel_written: Default::default(),
            bridge: crate::bridge::BridgeId(0),
            table: crate::rule::TableId::FIRST,
            key,
            stack: Vec::new(),
            action_set: Vec::new(),
            ct_zone: Some(9),
            mirrored: 0,
            lists: Vec::new(),
        };
        let range = |a: &str, b: &str| Some((a.parse().unwrap(), b.parse().unwrap()));
        let nat = Nat {
            direction: Some(NatDirection::Src),
            addresses: range("1.1.1.1", "1.1.1.9"),
            ports: Some((80, 90)),
            ..Nat::default()
        };
        let answer = answer(&resume, Some(&ct(Some(nat))), "trk,est".parse().unwrap());
        let get = |slot| answer.key.get(slot);
        assert_eq!([get(slot::CT_STATE), get(slot::CT_ZONE), get(slot::CT_MARK)], [0x22, 9, 5]);
        assert_eq!([get(slot::IP_SRC), get(slot::TP_SRC), get(slot::CT_NW_SRC)], [0x0101_0101, 80, 0x0909_0909]);
        assert_eq!(
            answer.told,
            "Replacing src/dst IP/ports to simulate NAT:\n \
             Initial flow: nw_src=9.9.9.9,tp_src=0,nw_dst=0.0.0.0,tp_dst=0\n \
             Modified flow: nw_src=1.1.1.1,tp_src=80,nw_dst=0.0.0.0,tp_dst=0\n"
        );
    }
}
