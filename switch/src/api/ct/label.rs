//! Labels that a client asks for, as the tracker takes them.

use crate::conntrack::Tuple;
use sluice_proto::v1::{ConnectionLabel, ConnectionTuple};
use std::net::IpAddr;
use tonic::Status;

/// What is asked for: of which connection, the bits, and which bits.
pub(super) fn read(asked: &ConnectionLabel) -> Result<(Tuple, u128, u128), Status> {
    let original = asked.original.as_ref().ok_or_else(|| Status::invalid_argument("`original` is missing"))?;
    let zone = small(asked.zone, "zone")?;
    let proto = u8::try_from(asked.proto).map_err(|_| Status::invalid_argument("`proto` is a number up to 255"))?;
    let tuple = Tuple::new(zone, proto, address(&original.src, "src")?, address(&original.dst, "dst")?);
    let tuple = match proto {
        1 | 58 => tuple.with_ports(small(original.src_port, "src_port")?, icmp(original)?),
        _ => tuple.with_ports(small(original.src_port, "src_port")?, small(original.dst_port, "dst_port")?),
    };
    Ok((tuple, bits(&asked.label, "label")?, bits(&asked.mask, "mask")?))
}

fn small(number: u32, what: &str) -> Result<u16, Status> {
    u16::try_from(number).map_err(|_| Status::invalid_argument(format!("`{what}` is {number}; it is at most 65535")))
}

fn address(text: &str, what: &str) -> Result<IpAddr, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("`{what}` is {text:?}, which is no IP address")))
}

/// Type and code, as a tuple has them.
fn icmp(original: &ConnectionTuple) -> Result<u16, Status> {
    let byte = |number: Option<u32>, what: &str| {
        let number = number.unwrap_or_default();
        u8::try_from(number).map_err(|_| Status::invalid_argument(format!("`{what}` is {number}; it is at most 255")))
    };
    Ok(u16::from_be_bytes([byte(original.icmp_type, "icmp_type")?, byte(original.icmp_code, "icmp_code")?]))
}

fn bits(text: &str, what: &str) -> Result<u128, Status> {
    let number = match text.strip_prefix("0x") {
        Some(hexadecimal) => u128::from_str_radix(hexadecimal, 16),
        None => text.parse(),
    };
    number.map_err(|_| Status::invalid_argument(format!("`{what}` is {text:?}; it is a number of 128 bits, as `0x1f`")))
}
