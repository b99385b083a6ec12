//! Takes over what `host-local` has reserved for a network.
//!
//! First all that can be taken over is on the disk in our store, then the files go: killed in between, both say the same,
//! and the next run removes the files. What is taken over has no namespace path and no boot ID, so no reboot frees it by
//! itself; DEL and GC do.

use super::address::Address;
use super::error::IpamError;
use super::foreign::Entry;
use super::own::{Moment, Own};
use super::store::{Record, Tables};
use crate::spec::{is_ifname, is_name};
use std::net::IpAddr;
use std::path::PathBuf;

/// What was taken over, or with a dry run, would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    /// `host-local`'s directory.
    pub directory: PathBuf,
    /// What is ours now.
    pub moved: Vec<(IpAddr, Record)>,
    /// Of those, what is in no range of the configuration: kept until released, and not given again.
    pub outside: Vec<IpAddr>,
    /// Was ours before, with the same owner; only its file went.
    pub already: Vec<IpAddr>,
    /// Was left where it is, and why.
    pub left: Vec<(IpAddr, String)>,
    /// Whether the directory is gone, since nothing was left in it.
    pub directory_removed: bool,
}

/// What becomes of a file.
enum Fate {
    Move(Record),
    Already,
    Leave(String),
}

impl Own {
    /// Takes over the reservations of the directory, or says what would be.
    pub(crate) fn migrate(&self, dry_run: bool, at: &Moment) -> Result<Migration, IpamError> {
        let directory = self.directory();
        let mut report = Migration { directory: directory.path().to_owned(), ..Migration::default() };
        let Some(_lock) = directory.lock()? else { return Ok(report) };
        let entries = directory.entries()?;
        if dry_run {
            let owners = self.store().read(|view| {
                let owner = |e: &Entry| view.owner(&self.network, e.ip.into());
                entries.iter().map(owner).collect::<Result<Vec<_>, _>>()
            })?;
            let owners = owners.unwrap_or_else(|| vec![None; entries.len()]);
            for (entry, owner) in entries.iter().zip(owners) {
                self.note(&mut report, entry, fate(entry, owner, at));
            }
            return Ok(report);
        }
        self.store().write(|tables| {
            for entry in &entries {
                let fate = fate(entry, tables.owner(&self.network, entry.ip.into())?, at);
                if let Fate::Move(record) = &fate {
                    tables.reserve(&self.network, entry.ip.into(), record)?;
                }
                self.note(&mut report, entry, fate);
            }
            self.take_cursors(tables)
        })?;
        let gone = report.moved.iter().map(|(ip, _)| ip).chain(&report.already);
        gone.copied().try_for_each(|ip| directory.remove(ip))?;
        report.directory_removed = report.left.is_empty() && directory.remove_empty()?;
        Ok(report)
    }

    /// Goes on where `host-local` stopped, in sets from which we have given nothing yet.
    fn take_cursors(&self, tables: &mut Tables<'_>) -> Result<(), IpamError> {
        for (n, set) in self.settings.sets.iter().enumerate() {
            let last = self.directory().last_of(n).map(Address::from).filter(|a| set.range_of(*a).is_some());
            if let (Some(last), None) = (last, tables.last(&self.network, &set.key)?) {
                tables.set_last(&self.network, &set.key, last)?;
            }
        }
        Ok(())
    }

    fn note(&self, report: &mut Migration, entry: &Entry, fate: Fate) {
        match fate {
            Fate::Move(record) => {
                if !self.settings.sets.iter().any(|s| s.range_of(entry.ip.into()).is_some()) {
                    report.outside.push(entry.ip);
                }
                report.moved.push((entry.ip, record));
            }
            Fate::Already => report.already.push(entry.ip),
            Fate::Leave(why) => report.left.push((entry.ip, why)),
        }
    }
}

fn fate(entry: &Entry, owner: Option<Record>, at: &Moment) -> Fate {
    let valid = is_name("the container's ID", &entry.container_id)
        .and_then(|()| if entry.ifname.is_empty() { Ok(()) } else { is_ifname(&entry.ifname) });
    if let Err(wrong) = valid {
        return Fate::Leave(format!("its file does not say whose it is: {wrong}"));
    }
    match owner {
        None => Fate::Move(Record {
            container_id: entry.container_id.clone(),
            ifname: entry.ifname.clone(),
            time_s: at.now_ms / 1000,
            ..Record::default()
        }),
        Some(owner) if owner.container_id == entry.container_id => Fate::Already,
        Some(owner) => Fate::Leave(format!("it is given to {} here", owner.owner())),
    }
}
