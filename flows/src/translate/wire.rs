//! The packet as the actions emitted so far leave it, and the actions that make it what the tables see.

use super::{MacLookup, TraceSink, Walk};
use crate::datapath::{Change, DpAction};
use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_NSH, ETH_TYPE_RARP, Field,
    IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP, ND_ADVERT, ND_SOLICIT,
};
use crate::key::{FRAME_WORDS, FlowKey, FlowMask, Slot, VLAN_PRESENT, slot};
use crate::tunnel::TunnelKey;
use smallvec::SmallVec;

/// The slots of the label stack entries that the key has, outermost first.
pub(super) const LABEL_SLOTS: [Slot; 3] = [slot::MPLS_LSE, slot::MPLS_LSE_1, slot::MPLS_LSE_2];
/// The bottom-of-stack bit of a label stack entry.
pub(super) const LABEL_BOTTOM: u32 = 0x100;

/// The packet as the actions emitted so far leave it.
#[derive(Clone)]
pub(super) struct Wire {
    key: FlowKey,
    /// Bits of `key` that emitted actions have set.
    written: FlowMask,
    /// Tags on the wire, outermost first.
    tags: Tags,
    /// Label stack entries on the wire, outermost first.
    labels: Labels,
    /// What tunnel ports were told of the outer headers; `None` if that was in an earlier pass.
    pub(super) tunnel: Option<TunnelKey>,
}

/// VLAN tags as (TPID, TCI), outermost first.
type Tags = SmallVec<[(u16, u16); 2]>;
/// Label stack entries, outermost first.
type Labels = SmallVec<[u32; 3]>;

impl Wire {
    pub(super) fn new(key: &FlowKey) -> Self {
        Self { key: *key, written: FlowMask::ZERO, tags: tags(key), labels: labels(key), tunnel: Some(TunnelKey::NONE) }
    }
}

impl Wire {
    /// The wire is what the tables see.
    pub(super) fn follow(&mut self, key: &FlowKey, written: &FlowMask) {
        (self.key, self.written) = (*key, *written);
        (self.tags, self.labels) = (tags(key), labels(key));
    }
}

/// The bits of its slot that a field means: `nw_tos` means the DSCP bits of the byte that its slot is.
pub(super) const fn meant(field: Field) -> u128 {
    if matches!(field, Field::NwTos) { 0xfc } else { u128::MAX }
}

fn tags(key: &FlowKey) -> Tags {
    [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_VLAN_TPID, slot::INNER_VLAN_TCI)]
        .into_iter()
        .map(|(tpid, tci)| (key.get(tpid) as u16, key.get(tci) as u16))
        .take_while(|(_, tci)| tci & VLAN_PRESENT != 0)
        .collect()
}

/// Whether an EtherType is one of MPLS.
pub(super) const fn is_mpls(eth_type: u16) -> bool {
    matches!(eth_type, ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST)
}

/// The label stack entries of the packet that the key has room for: up to the bottom of the stack, at most three. An
/// entry of all zeros is one that is not there, as in OVS.
pub(super) fn labels(key: &FlowKey) -> Labels {
    let mut labels = Labels::new();
    if is_mpls(key.get(slot::ETH_TYPE) as u16) {
        for slot in LABEL_SLOTS {
            let entry = key.get(slot) as u32;
            if entry == 0 {
                break;
            }
            labels.push(entry);
            if entry & LABEL_BOTTOM != 0 {
                return labels;
            }
        }
        // Without a bottom in sight, entries of zeros are no labels, as in OVS.
        let filled = labels.iter().filter(|entry| **entry != 0).count();
        labels.truncate(filled);
    }
    labels
}

/// The fields of each header that actions can set, for the packet that `key` describes.
fn settable_fields(key: &FlowKey) -> [&'static [Field]; 3] {
    const ETH: &[Field] = &[Field::EthSrc, Field::EthDst];
    const ARP: &[Field] = &[Field::ArpSpa, Field::ArpTpa, Field::ArpOp, Field::ArpSha, Field::ArpTha];
    const IPV4: &[Field] = &[Field::IpSrc, Field::IpDst, Field::NwTos, Field::IpTtl];
    const IPV6: &[Field] = &[Field::Ipv6Src, Field::Ipv6Dst, Field::Ipv6Label, Field::NwTos, Field::IpTtl];
    const NSH: &[Field] = &[
        Field::NshFlags,
        Field::NshTtl,
        Field::NshSpi,
        Field::NshSi,
        Field::NshC1,
        Field::NshC2,
        Field::NshC3,
        Field::NshC4,
    ];
    const ND: &[Field] = &[
        Field::Icmpv6Type,
        Field::Icmpv6Code,
        Field::NdReserved,
        Field::NdOptionsType,
        Field::NdTarget,
        Field::NdSll,
        Field::NdTll,
    ];
    let l2: &[Field] = if key.get(slot::PACKET_TYPE) == 0 { ETH } else { &[] };
    let (l3, v6): (&[Field], bool) = match key.get(slot::ETH_TYPE) as u16 {
        ETH_TYPE_IPV4 => (IPV4, false),
        ETH_TYPE_IPV6 => (IPV6, true),
        ETH_TYPE_ARP | ETH_TYPE_RARP => (ARP, false),
        ETH_TYPE_NSH => (NSH, false),
        _ => (&[], false),
    };
    let is_ip = l3 == IPV4 || v6;
    let kind = key.get(slot::TP_SRC) as u8;
    let l4: &[Field] = match key.get(slot::IP_PROTO) as u8 {
        _ if !is_ip => &[],
        IP_PROTO_TCP => &[Field::TcpSrc, Field::TcpDst],
        IP_PROTO_UDP => &[Field::UdpSrc, Field::UdpDst],
        IP_PROTO_SCTP => &[Field::SctpSrc, Field::SctpDst],
        IP_PROTO_ICMP if !v6 => &[Field::IcmpType, Field::IcmpCode],
        IP_PROTO_ICMPV6 if v6 && (kind == ND_SOLICIT || kind == ND_ADVERT) => ND,
        IP_PROTO_ICMPV6 if v6 => &[Field::Icmpv6Type, Field::Icmpv6Code],
        _ => &[],
    };
    [l2, l3, l4]
}

impl<M: MacLookup, S: TraceSink> Walk<'_, M, S> {
    /// Emits what makes the wire equal to the packet as the tables see it.
    pub(super) fn commit(&mut self) {
        let under_labels = !is_mpls(self.flow.key.get(slot::ETH_TYPE) as u16);
        // What is under labels can be reached only when they are off.
        if under_labels {
            self.commit_labels();
        }
        let [l2, l3, l4] = settable_fields(&self.flow.key);
        self.commit_fields(l2);
        if !self.unread {
            self.commit_fields(l3);
            self.commit_fields(l4);
        }
        self.commit_labels();
        self.commit_tags();
        self.commit_fields(&[Field::SkbPriority]);
        self.commit_fields(&[Field::PktMark]);
    }

    fn commit_fields(&mut self, fields: &[Field]) {
        let mut changes = SmallVec::<[Change; 2]>::new();
        for &field in fields {
            let slot = field.slot();
            let (written, sent) = (self.flow.written.get(slot), self.wire.written.get(slot));
            let (value, on_wire) = (self.flow.key.get(slot), self.wire.key.get(slot));
            // Original again, but changed on the wire: the original bits have to be put back, so they matter.
            let back = sent & !written;
            let mut need = (back | written & (!sent | value ^ on_wire)) & slot.max();
            if need == 0 {
                continue;
            }
            // What was sent already may be sent again, so that a field that was written whole is set whole.
            need |= written & slot.max();
            if usize::from(slot.word) == 0 || usize::from(slot.word) >= FRAME_WORDS {
                // What is no header field is set whole.
                need = slot.max();
                self.read(slot);
            }
            self.mask.set_masked(slot, u128::MAX, back);
            changes.push(Change { field, value: value & need, mask: need });
            self.wire.key.set_masked(slot, value, need);
            // What was put back is the packet's own again.
            self.wire.written.set(slot, (sent | need) & written);
        }
        if !changes.is_empty() {
            self.out.actions.push(DpAction::Set(changes));
        }
    }

    fn commit_tags(&mut self) {
        let want = tags(&self.flow.key);
        let have = &self.wire.tags;
        if want == *have {
            return;
        }
        let kept = want.iter().rev().zip(have.iter().rev()).take_while(|(a, b)| a == b).count();
        self.out.actions.extend((kept..have.len()).map(|_| DpAction::PopVlan));
        let pushed = want[..want.len() - kept].iter().rev();
        self.out.actions.extend(pushed.map(|&(tpid, tci)| DpAction::PushVlan { tpid, tci: tci & !VLAN_PRESENT }));
        self.wire.tags = want;
    }

    /// Pops, changes and pushes labels. Of the entries that are in both stacks, counted from the bottom, none is touched.
    fn commit_labels(&mut self) {
        let want = labels(&self.flow.key);
        let mut have = self.wire.labels.clone();
        let eth_type = self.flow.key.get(slot::ETH_TYPE) as u16;
        let mut kept = want.iter().rev().zip(have.iter().rev()).take_while(|(a, b)| a == b).count();
        while have.len() > kept {
            if have.len() == kept + 1 && want.len() > kept {
                let entry = want[want.len() - have.len()];
                self.out.actions.push(DpAction::Set(label_changes(entry)));
                have[0] = entry;
                kept += 1;
            } else {
                // Between labels the type is that of labels, whatever comes in the end.
                let under = if want.is_empty() && have.len() > 1 { ETH_TYPE_MPLS } else { eth_type };
                self.out.actions.push(DpAction::PopMpls(under));
                have.remove(0);
            }
        }
        while have.len() < want.len() {
            let lse = want[want.len() - have.len() - 1];
            self.out.actions.push(DpAction::PushMpls { eth_type, lse });
            have.insert(0, lse);
        }
        self.wire.labels = have;
    }
}

/// The changes that make the outermost label stack entry this one.
fn label_changes(entry: u32) -> SmallVec<[Change; 2]> {
    [Field::MplsLabel, Field::MplsTc, Field::MplsTtl, Field::MplsBos]
        .into_iter()
        .map(|field| {
            let below = field.slot().shift - slot::MPLS_LSE.shift;
            Change { field, value: u128::from(entry >> below) & field.slot().max(), mask: field.slot().max() }
        })
        .collect()
}
