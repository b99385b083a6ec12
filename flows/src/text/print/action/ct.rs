//! Printing `ct(..)`.

use super::{subfield, table};
use crate::action::{Ct, CtAlg, CtZone, Nat, NatChoice, NatDirection};
use crate::text::Names;
use crate::text::print::value::ipv6;
use crate::text::print::{List, show_actions};
use std::fmt::{self, Display};
use std::net::IpAddr;

/// Writes `ct(..)`.
pub(super) fn write(f: &mut fmt::Formatter<'_>, ct: &Ct, names: &Names) -> fmt::Result {
    f.write_str("ct(")?;
    let mut list = List::new(f);
    if ct.commit {
        list.item(format_args!("commit"))?;
    }
    if ct.force {
        list.item(format_args!("force"))?;
    }
    if let Some(id) = ct.table {
        list.item(format_args!("table={}", table(id, names)))?;
    }
    match ct.zone {
        CtZone::Number(0) => {}
        CtZone::Number(zone) => list.item(format_args!("zone={zone}"))?,
        CtZone::Field(src) => list.item(format_args!("zone={}", subfield(src)))?,
    }
    if let Some(nat) = &ct.nat {
        list.item(format_args!("{}", show_nat(nat)))?;
    }
    if !ct.exec.is_empty() {
        list.item(format_args!("exec({})", show_actions(&ct.exec, names)))?;
    }
    match ct.alg {
        None => {}
        Some(CtAlg::Ftp) => list.item(format_args!("alg=ftp"))?,
        Some(CtAlg::Tftp) => list.item(format_args!("alg=tftp"))?,
    }
    f.write_str(")")
}

fn show_nat(nat: &Nat) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        let side = match nat.direction {
            None => return f.write_str("nat"),
            Some(NatDirection::Src) => "src",
            Some(NatDirection::Dst) => "dst",
        };
        write!(f, "nat({side}")?;
        if let Some((first, last)) = nat.addresses {
            let bracketed = nat.ports.is_some();
            write!(f, "={}", address(first, bracketed))?;
            if last != first {
                write!(f, "-{}", address(last, bracketed))?;
            }
            if let Some((low, high)) = nat.ports {
                write!(f, ":{low}")?;
                if high != low {
                    write!(f, "-{high}")?;
                }
            }
        }
        if nat.persistent {
            f.write_str(",persistent")?;
        }
        f.write_str(match nat.choice {
            NatChoice::Any => ")",
            NatChoice::Hash => ",hash)",
            NatChoice::Random => ",random)",
        })
    })
}

/// An address; one of IPv6 in brackets if a port stands behind it.
fn address(address: IpAddr, bracketed: bool) -> impl Display {
    fmt::from_fn(move |f| match address {
        IpAddr::V4(address) => address.fmt(f),
        IpAddr::V6(address) if bracketed => write!(f, "[{}]", ipv6(address.to_bits())),
        IpAddr::V6(address) => ipv6(address.to_bits()).fmt(f),
    })
}
