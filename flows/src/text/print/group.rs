//! Printing groups as `ovs-ofctl -O OpenFlow15 dump-groups` and `dump-group-stats` do.

use super::value::{of_field, port};
use super::{List, show_actions};
use crate::field::Field;
use crate::group::{Bucket, Group, GroupKind, Selection};
use crate::rule::Millis;
use crate::text::Names;
use std::fmt;

/// A group as `dump-groups` prints it, without the blank that `ovs-ofctl` begins its lines with. It reads back.
///
/// The owner is not in it: this is OVS's language and no more.
pub fn show_group<'a>(group: &'a Group, names: &'a Names) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| {
        let kind = match group.kind {
            GroupKind::All => "all",
            GroupKind::Select => "select",
            GroupKind::Indirect => "indirect",
            GroupKind::FastFailover => "ff",
        };
        write!(f, "group_id={},type={kind}", group.id)?;
        write_selection(f, &group.selection, names)?;
        group.buckets.iter().try_for_each(|bucket| write_bucket(f, group.kind, bucket, names))
    })
}

fn write_selection(f: &mut fmt::Formatter<'_>, selection: &Selection, names: &Names) -> fmt::Result {
    let (method, param, fields): (_, _, &[(Field, u128)]) = match selection {
        Selection::Default => return Ok(()),
        Selection::DpHash { param } => ("dp_hash", *param, &[]),
        Selection::Hash { param, fields } => ("hash", *param, fields),
    };
    write!(f, ",selection_method={method}")?;
    if param != 0 {
        write!(f, ",selection_method_param={param}")?;
    }
    let one = |field: Field, mask: u128| {
        fmt::from_fn(move |f| match mask & field.slot().max() {
            whole if whole == field.slot().max() => f.write_str(field.info().name),
            part => write!(f, "{}={}", field.info().name, of_field(field, part, u128::MAX, names)),
        })
    };
    match fields {
        [] => Ok(()),
        [(field, mask)] => write!(f, ",fields={}", one(*field, *mask)),
        many => {
            f.write_str(",fields(")?;
            let mut list = List::new(f);
            many.iter().try_for_each(|(field, mask)| list.item(format_args!("{}", one(*field, *mask))))?;
            f.write_str(")")
        }
    }
}

fn write_bucket(f: &mut fmt::Formatter<'_>, kind: GroupKind, bucket: &Bucket, names: &Names) -> fmt::Result {
    write!(f, ",bucket=bucket_id:{},", bucket.id)?;
    if bucket.weight != u16::from(kind == GroupKind::Select) {
        write!(f, "weight:{},", bucket.weight)?;
    }
    if let Some(no) = bucket.watch_port {
        write!(f, "watch_port:{},", port(no, names))?;
    }
    if let Some(group) = bucket.watch_group {
        write!(f, "watch_group:{group},")?;
    }
    write!(f, "actions={}", show_actions(&bucket.actions, names))
}

/// A group's counters at `now` as `dump-group-stats` prints them, without the blank that `ovs-ofctl` begins its lines
/// with. `flows` is the number of flows that send to the group.
pub fn show_group_stats(group: &Group, flows: usize, now: Millis) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        let age = now.since(group.created);
        write!(f, "group_id={},duration={}.{:03}s,ref_count={flows}", group.id, age / 1000, age % 1000)?;
        write!(f, ",packet_count={},byte_count={}", group.stats.packets(), group.stats.bytes())?;
        group.buckets.iter().enumerate().try_for_each(|(index, bucket)| {
            write!(f, ",bucket{index}:packet_count={},byte_count={}", bucket.stats.packets(), bucket.stats.bytes())
        })
    })
}
