//! What a datapath action does to a packet, told by its key.

use super::{DpAction, NshHeader};
use crate::field::{ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_NSH};
use crate::key::{FRAME_WORDS, FlowKey, PACKET_WORDS, Slot, VLAN_PRESENT, slot};

/// The first word that tells of what is behind the EtherType.
const NETWORK_WORD: usize = 4;
/// ETHER_TYPES of NSH's next protocols 1 to 4: IPv4, IPv6, Ethernet and NSH (RFC 8300, 2.5.1).
const NSH_NEXT: [u16; 4] = [0x0800, 0x86dd, 0x6558, ETH_TYPE_NSH];
/// Name space of ETHER_TYPES in a packet type, in the slot's upper half.
const ETHER_TYPES: u128 = 1 << 16;

/// Label stack entries, the outermost first.
const LABELS: [Slot; 3] = [slot::MPLS_LSE, slot::MPLS_LSE_1, slot::MPLS_LSE_2];

impl DpAction {
    /// Changes `key` as the action changes the packet. Of a header that only a parser could tell of, such as what was
    /// under a popped label, the key says nothing: its fields are 0. Lists in other actions are not done.
    pub fn rewrite(&self, key: &mut FlowKey) {
        match self {
            Self::Set(changes) => {
                for change in changes {
                    key.set_masked(change.field.slot(), change.value, change.mask);
                }
            }
            Self::Readdress(new) => {
                for change in new.changes() {
                    key.set_masked(change.field.slot(), change.value, change.mask);
                }
            }
            Self::Tunnel(tunnel) => key.0[FRAME_WORDS..PACKET_WORDS].copy_from_slice(&tunnel.0),
            Self::PushVlan { tpid, tci } => push_vlan(key, *tpid, *tci),
            Self::PopVlan => pop_vlan(key),
            Self::PushMpls { eth_type, lse } => push_mpls(key, *eth_type, *lse),
            Self::PopMpls(eth_type) => pop_mpls(key, *eth_type),
            Self::PushEthernet { src, dst, eth_type } => {
                key.set(slot::ETH_SRC, (*src).into());
                key.set(slot::ETH_DST, (*dst).into());
                key.set(slot::ETH_TYPE, (*eth_type).into());
                key.set(slot::PACKET_TYPE, 0);
            }
            Self::PopEthernet => {
                for slot in [slot::ETH_SRC, slot::ETH_DST, slot::VLAN_TCI, slot::VLAN_TPID] {
                    key.set(slot, 0);
                }
                let eth_type = key.get(slot::ETH_TYPE);
                key.set(slot::PACKET_TYPE, ETHER_TYPES | eth_type);
            }
            Self::PushNsh(header) => push_nsh(key, header),
            Self::PopNsh => {
                let next = key.get(slot::NSH_NP) as usize;
                forget_network(key);
                let eth_type = NSH_NEXT.get(next.wrapping_sub(1)).copied().unwrap_or(0);
                key.set(slot::ETH_TYPE, eth_type.into());
            }
            Self::CtClear => {
                let ct = [slot::CT_STATE, slot::CT_ZONE, slot::CT_MARK, slot::CT_LABEL, slot::CT_NW_PROTO];
                let tuple = [slot::CT_IPV6_SRC, slot::CT_IPV6_DST, slot::CT_TP_SRC, slot::CT_TP_DST];
                ct.into_iter().chain(tuple).for_each(|slot| key.set(slot, 0));
            }
            _ => {}
        }
    }
}

fn forget_network(key: &mut FlowKey) {
    key.0[NETWORK_WORD..FRAME_WORDS].fill(0);
}

fn push_vlan(key: &mut FlowKey, tpid: u16, tci: u16) {
    let (outer_tpid, outer_tci) = (key.get(slot::VLAN_TPID), key.get(slot::VLAN_TCI));
    key.set(slot::INNER_VLAN_TPID, outer_tpid);
    key.set(slot::INNER_VLAN_TCI, outer_tci);
    key.set(slot::VLAN_TPID, tpid.into());
    key.set(slot::VLAN_TCI, (tci | VLAN_PRESENT).into());
}

fn pop_vlan(key: &mut FlowKey) {
    let (inner_tpid, inner_tci) = (key.get(slot::INNER_VLAN_TPID), key.get(slot::INNER_VLAN_TCI));
    key.set(slot::VLAN_TPID, inner_tpid);
    key.set(slot::VLAN_TCI, inner_tci);
    key.set(slot::INNER_VLAN_TPID, 0);
    key.set(slot::INNER_VLAN_TCI, 0);
}

fn is_mpls(key: &FlowKey) -> bool {
    matches!(key.get(slot::ETH_TYPE) as u16, ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST)
}

fn push_mpls(key: &mut FlowKey, eth_type: u16, lse: u32) {
    let under = if is_mpls(key) { LABELS.map(|slot| key.get(slot)) } else { [0; 3] };
    forget_network(key);
    for (slot, entry) in LABELS.into_iter().zip([lse.into(), under[0], under[1]]) {
        key.set(slot, entry);
    }
    key.set(slot::ETH_TYPE, eth_type.into());
}

fn pop_mpls(key: &mut FlowKey, eth_type: u16) {
    let entries = LABELS.map(|slot| key.get(slot));
    forget_network(key);
    key.set(slot::ETH_TYPE, eth_type.into());
    if is_mpls(key) {
        key.set(LABELS[0], entries[1]);
        key.set(LABELS[1], entries[2]);
    }
}

fn push_nsh(key: &mut FlowKey, header: &NshHeader) {
    forget_network(key);
    key.set(slot::ETH_TYPE, ETH_TYPE_NSH.into());
    key.set(slot::PACKET_TYPE, ETHER_TYPES | u128::from(ETH_TYPE_NSH));
    key.set(slot::NSH_FLAGS, header.flags.into());
    key.set(slot::NSH_TTL, header.ttl.into());
    key.set(slot::NSH_MDTYPE, header.md_type.into());
    key.set(slot::NSH_NP, header.np.into());
    key.set(slot::NSH_PATH, header.path.into());
    let context = header.context.iter().fold(0_u128, |all, word| all << 32 | u128::from(*word));
    key.set(slot::NSH_CONTEXT, context);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip() -> FlowKey {
        let mut key = FlowKey::ZERO;
        key.set(slot::ETH_TYPE, 0x0800);
        key.set(slot::IP_TTL, 64);
        key.set(slot::IP_DST, 0x0a00_0001);
        key
    }

    #[test]
    fn tags_are_pushed_and_popped_in_order() {
        let mut key = ip();
        DpAction::PushVlan { tpid: 0x8100, tci: 10 }.rewrite(&mut key);
        DpAction::PushVlan { tpid: 0x88a8, tci: 0x6014 }.rewrite(&mut key);
        assert_eq!([key.get(slot::VLAN_TCI), key.get(slot::INNER_VLAN_TCI)], [0x7014, 0x100a]);
        DpAction::PopVlan.rewrite(&mut key);
        DpAction::PopVlan.rewrite(&mut key);
        assert_eq!(key, ip());
    }

    #[test]
    fn labels_hide_what_is_under_them_and_shift() {
        let mut key = ip();
        DpAction::PushMpls { eth_type: 0x8847, lse: 0x0004_d140 }.rewrite(&mut key);
        assert_eq!([key.get(slot::MPLS_LSE), key.get(slot::MPLS_LSE_1)], [0x0004_d140, 0]);
        DpAction::PushMpls { eth_type: 0x8848, lse: 0x0004_e040 }.rewrite(&mut key);
        assert_eq!([key.get(slot::MPLS_LSE), key.get(slot::MPLS_LSE_1)], [0x0004_e040, 0x0004_d140]);
        DpAction::PopMpls(0x8847).rewrite(&mut key);
        assert_eq!([key.get(slot::MPLS_LSE), key.get(slot::ETH_TYPE)], [0x0004_d140, 0x8847]);
        DpAction::PopMpls(0x0800).rewrite(&mut key);
        assert_eq!([key.get(slot::ETH_TYPE), key.get(slot::IP_DST), key.get(slot::IP_TTL)], [0x0800, 0, 0]);
    }

    #[test]
    fn the_next_protocol_of_a_service_header_is_what_is_left() {
        let mut key = ip();
        let (context, tlvs) = ([1, 2, 3, 4], Box::default());
        let header = NshHeader { flags: 0, ttl: 63, md_type: 1, np: 3, path: 0x0012_34ff, context, tlvs };
        DpAction::PushNsh(Box::new(header)).rewrite(&mut key);
        let got = [slot::ETH_TYPE, slot::NSH_PATH, slot::NSH_TTL, slot::NSH_NP].map(|slot| key.get(slot));
        assert_eq!(got, [0x894f, 0x0012_34ff, 63, 3]);
        assert_eq!(key.get(slot::NSH_CONTEXT), 0x0000_0001_0000_0002_0000_0003_0000_0004);
        DpAction::PopNsh.rewrite(&mut key);
        assert_eq!(key.get(slot::ETH_TYPE), 0x6558);
    }
}
