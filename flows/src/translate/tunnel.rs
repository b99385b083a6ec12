//! Sending by tunnel ports: what flows decide of the outer headers.

use super::{MacLookup, TraceSink, Walk};
use crate::datapath::DpAction;
use crate::key::{Slot, slot};
use crate::tunnel::{Byte, Part, TUN_OPTIONS, Tunnel, TunnelKey, TunnelKind};
use crate::verdict::DropReason;

impl<M: MacLookup, S: TraceSink> Walk<'_, M, S> {
    /// Makes the outer headers what flow and port say. False if the flow was to say where to, and did not.
    pub(super) fn set_tunnel(&mut self, tunnel: &Tunnel) -> bool {
        let mut want = TunnelKey::NONE;
        if tunnel.is_fixed() {
            self.describe(tunnel.kind, &mut want);
        } else {
            self.address(tunnel, &mut want);
            if want.dst().is_none() && !tunnel.kind.finds_remote() {
                self.reason = DropReason::TunnelDown;
                self.note("the flow does not say where the tunnel leads: tun_dst and tun_ipv6_dst are 0");
                return false;
            }
            self.describe(tunnel.kind, &mut want);
        }
        if self.wire.tunnel != Some(want) {
            self.wire.tunnel = Some(want);
            self.out.actions.push(DpAction::Tunnel(Box::new(want)));
        }
        true
    }

    /// Both ends, key, TOS and TTL.
    fn address(&mut self, tunnel: &Tunnel, want: &mut TunnelKey) {
        match tunnel.remote {
            Part::Fixed(remote) => want.set_dst(remote),
            Part::Flow => {
                for slot in [slot::TUN_DST, slot::TUN_IPV6_DST] {
                    let value = self.tunnel_field(slot);
                    want.set(slot, value);
                }
            }
        }
        match tunnel.local {
            Part::Fixed(local) if local.is_unspecified() => {}
            Part::Fixed(local) => want.set_src(local),
            Part::Flow => {
                for slot in [slot::TUN_SRC, slot::TUN_IPV6_SRC] {
                    let value = self.tunnel_field(slot);
                    want.set(slot, value);
                }
            }
        }
        want.set_id(match tunnel.out_key {
            Part::Fixed(key) => key.unwrap_or(0),
            Part::Flow => self.tunnel_field(slot::TUN_ID) as u64,
        });
        let tos = self.outer_byte(tunnel.tos, slot::TUN_TOS);
        let ttl = self.outer_byte(tunnel.ttl, slot::TUN_TTL);
        want.set_tos_ttl(tos, ttl);
    }

    /// TOS or TTL; 0 for what the port takes from the packet inside.
    fn outer_byte(&mut self, byte: Byte, slot: Slot) -> u8 {
        match byte {
            Byte::Fixed(value) => value,
            Byte::Inherit => 0,
            Byte::Flow => self.tunnel_field(slot) as u8,
        }
    }

    /// Flags, group policy and options, as far as the encapsulation has them.
    fn describe(&mut self, kind: TunnelKind, want: &mut TunnelKey) {
        match kind {
            TunnelKind::Vxlan => {
                for slot in [slot::TUN_GBP_ID, slot::TUN_GBP_FLAGS] {
                    let value = self.tunnel_field(slot);
                    want.set(slot, value);
                }
            }
            TunnelKind::Geneve => {
                let flags = self.tunnel_field(slot::TUN_FLAGS) as u16;
                for n in 0..TUN_OPTIONS as u8 {
                    let slot = slot::tun_metadata(n);
                    let value = self.tunnel_field(slot);
                    want.set(slot, value);
                }
                want.set_flags(flags);
            }
            _ => {}
        }
    }

    /// The value of a tunnel field. Of a packet that did not arrive by a tunnel, which its ingress port says, those that
    /// no flow wrote are 0.
    fn tunnel_field(&mut self, slot: Slot) -> u128 {
        let arrived = [slot::TUN_DST, slot::TUN_IPV6_DST].iter().any(|dst| self.entered.get(*dst) != 0);
        if arrived { self.read(slot) } else { self.flow.key.get(slot) }
    }
}
