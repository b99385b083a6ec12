//! Printing what connection tracking is asked for.

use crate::action::{CtAlg, Nat, NatChoice, NatDirection};
use crate::datapath::DpCt;
use crate::text::print::List;
use crate::text::print::value::ipv6;
use std::fmt::{self, Display};
use std::net::IpAddr;

/// `ct(commit,zone=5,..)`; `ct` alone where nothing is asked for.
pub(super) fn show(ct: &DpCt) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        f.write_str("ct")?;
        if !ct.commit && !ct.force && ct.zone == 0 && ct.mark.is_none() && ct.label.is_none() && ct.nat.is_none() {
            return match ct.alg {
                Some(alg) => write!(f, "(helper={})", helper(alg)),
                None => Ok(()),
            };
        }
        f.write_str("(")?;
        let mut list = List::new(f);
        if ct.commit || ct.force {
            list.item(format_args!("{}", if ct.force { "force_commit" } else { "commit" }))?;
        }
        if ct.zone != 0 {
            list.item(format_args!("zone={}", ct.zone))?;
        }
        if let Some((value, mask)) = ct.mark {
            list.item(format_args!("mark={value:#x}/{mask:#x}"))?;
        }
        if let Some((value, mask)) = ct.label {
            match mask {
                u128::MAX => list.item(format_args!("label={value:#x}"))?,
                mask => list.item(format_args!("label={value:#x}/{mask:#x}"))?,
            }
        }
        if let Some(alg) = ct.alg {
            list.item(format_args!("helper={}", helper(alg)))?;
        }
        if let Some(nat) = &ct.nat {
            list.item(format_args!("{}", translation(nat)))?;
        }
        f.write_str(")")
    })
}

fn helper(alg: CtAlg) -> &'static str {
    match alg {
        CtAlg::Ftp => "ftp",
        CtAlg::Tftp => "tftp",
    }
}

/// `nat(src=FIRST-LAST:FIRST-LAST,persistent,hash)`.
fn translation(nat: &Nat) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        f.write_str("nat")?;
        let direction = match nat.direction {
            Some(NatDirection::Src) => "src",
            Some(NatDirection::Dst) => "dst",
            None => return Ok(()),
        };
        write!(f, "({direction}")?;
        if let Some((first, last)) = nat.addresses {
            // Only where a port follows does the address of IPv6 need brackets.
            write!(f, "={}", address(first, nat.ports.is_some()))?;
            if last != first {
                write!(f, "-{}", address(last, nat.ports.is_some()))?;
            }
        } else if nat.ports.is_some() {
            f.write_str("=")?;
        }
        if let Some((first, last)) = nat.ports {
            write!(f, ":{first}")?;
            if last != first {
                write!(f, "-{last}")?;
            }
        }
        if nat.persistent {
            f.write_str(",persistent")?;
        }
        f.write_str(match nat.choice {
            NatChoice::Any => "",
            NatChoice::Hash => ",hash",
            NatChoice::Random => ",random",
        })?;
        f.write_str(")")
    })
}

fn address(address: IpAddr, brackets: bool) -> impl Display {
    fmt::from_fn(move |f| match address {
        IpAddr::V4(v4) => v4.fmt(f),
        IpAddr::V6(v6) if brackets => write!(f, "[{}]", ipv6(v6.to_bits())),
        IpAddr::V6(v6) => ipv6(v6.to_bits()).fmt(f),
    })
}
