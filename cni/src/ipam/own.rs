//! Our own management of addresses: which address an attachment gets.
//!
//! One of each set of ranges: what was asked for; else what is reserved for the attachment's name; else the next one after
//! that which the set gave last, round all of the set's ranges once; else, if all others are taken, the one that has rested
//! the longest since its release. All sets are in one transaction: the attachment has all of its addresses or none.

use super::address::{Address, Span};
use super::config::{Settings, joined};
use super::error::IpamError;
use super::foreign::Directory;
use super::range::{Range, RangeSet};
use super::reclaim::{self, Reclaimed};
use super::resolver;
use super::search;
use super::store::{Record, Store, Tables};
use crate::spec::{AddResult, Attachment, IpConfig};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// How often an address is chosen anew because `host-local` took it in between.
const MAX_RACES: usize = 1000;

/// Our management for one network and one call.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) network: String,
    pub(crate) settings: Settings,
}

/// When and where a call is made.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// The kernel's boot ID.
    pub(crate) boot_id: String,
}

impl Own {
    pub(crate) fn store(&self) -> Store {
        Store::new(&self.settings.data_dir)
    }

    pub(crate) fn directory(&self) -> Directory {
        Directory::new(&self.settings.host_local)
    }

    /// Reserves an address of each set.
    pub(crate) fn add(
        &self,
        who: &Attachment,
        netns: &str,
        at: &Moment,
    ) -> Result<(AddResult, Vec<Reclaimed>), IpamError> {
        let dns = self.settings.resolv_conf.as_deref().map(resolver::read).transpose()?.unwrap_or_default();
        let directory = self.directory();
        let _lock = directory.lock()?;
        let (chosen, reclaimed) = self.store().write(|tables| {
            let reclaimed = reclaim::after_boot(tables, &at.boot_id)?;
            directory.refresh(tables, &self.network, at.now_ms)?;
            if let Some(has) = tables.of_owner(&self.network, &who.container_id, &who.ifname)?.first() {
                return Err(self.duplicate(who, has.to_ip()));
            }
            let chosen = self.choose(tables, &directory, at)?;
            let named = self.settings.reserved().map(|(name, _)| name.to_owned());
            let record = Record {
                container_id: who.container_id.clone(),
                ifname: who.ifname.clone(),
                netns: netns.to_owned(),
                boot_id: at.boot_id.clone(),
                time_s: at.now_ms / 1000,
                name: named.or_else(|| self.settings.names.first().cloned()).unwrap_or_default(),
                run: 0,
            };
            for (address, _) in &chosen {
                tables.reserve(&self.network, *address, &record)?;
            }
            Ok((chosen, reclaimed))
        })?;
        let ips = chosen
            .into_iter()
            .map(|(a, range)| IpConfig {
                address: range.with_prefix(a.to_ip()),
                gateway: range.gateway,
                interface: None,
            })
            .collect();
        Ok((AddResult { ips, routes: self.settings.routes.clone(), dns, ..AddResult::default() }, reclaimed))
    }

    /// An address of each set, with its range.
    fn choose<'s>(
        &'s self,
        tables: &mut Tables<'_>,
        directory: &Directory,
        at: &Moment,
    ) -> Result<Vec<(Address, &'s Range)>, IpamError> {
        let settings = &self.settings;
        let families: BTreeSet<u8> = settings.sets.iter().flat_map(|s| &s.ranges).map(|r| r.span.family).collect();
        for family in families {
            tables.cooled(&self.network, family, at.now_ms, settings.cooldown)?;
        }
        let mut asked: Vec<IpAddr> = settings.requested.clone().map(|r| r.ips).unwrap_or_default();
        let mut chosen = Vec::with_capacity(settings.sets.len());
        for set in &settings.sets {
            let of_set = |ip: &IpAddr| set.range_of(Address::from(*ip)).map(|range| (Address::from(*ip), range));
            let wanted = asked.iter().position(|ip| of_set(ip).is_some()).map(|n| asked.remove(n));
            let kept =
                settings.reserved().and_then(|(name, ips)| Some((name, ips.iter().find(|ip| of_set(ip).is_some())?)));
            let (address, range) = match (wanted, kept) {
                (Some(ip), _) => {
                    self.may_have(tables, directory, set, ip)?;
                    of_set(&ip)
                }
                (None, Some((name, ip))) => {
                    self.is_not_held(tables, directory, name, *ip)?;
                    of_set(ip)
                }
                (None, None) => {
                    let address = self.next(tables, directory, set)?;
                    tables.set_last(&self.network, &set.key, address)?;
                    of_set(&address.to_ip())
                }
            }
            .ok_or_else(|| self.exhausted(set))?;
            chosen.push((address, range));
        }
        if asked.is_empty() {
            return Ok(chosen);
        }
        let sets: Vec<String> = settings.sets.iter().map(ranges_text).collect();
        Err(IpamError::Unused { addresses: joined(&asked), sets: sets.join(" and ") })
    }

    /// Whether an address that was asked for can be given.
    fn may_have(
        &self,
        tables: &Tables<'_>,
        directory: &Directory,
        set: &RangeSet,
        ip: IpAddr,
    ) -> Result<(), IpamError> {
        let settings = &self.settings;
        let unavailable = |why: String| Err(IpamError::Unavailable { address: ip, why });
        if set.ranges.iter().any(|r| r.gateway == Some(ip)) {
            return unavailable("it is the gateway's".into());
        }
        if settings.excluded.find(ip.into()).is_some() {
            return unavailable("the configuration excludes it".into());
        }
        if let Some(name) = settings.reserved_for(ip).filter(|name| !settings.names.iter().any(|n| n == name)) {
            return unavailable(format!("it is reserved for {name}"));
        }
        match self.holder(tables, directory, ip)? {
            None => Ok(()),
            Some(owner) => Err(IpamError::Taken { address: ip, owner }),
        }
    }

    /// Whether an address that is reserved for this name is not yet, or still, held by another container.
    fn is_not_held(&self, tables: &Tables<'_>, directory: &Directory, name: &str, ip: IpAddr) -> Result<(), IpamError> {
        match self.holder(tables, directory, ip)? {
            None => Ok(()),
            Some(owner) => Err(IpamError::Held { address: ip, name: name.to_owned(), owner }),
        }
    }

    /// Who has the address.
    fn holder(&self, tables: &Tables<'_>, directory: &Directory, ip: IpAddr) -> Result<Option<String>, IpamError> {
        if let Some(record) = tables.owner(&self.network, ip.into())? {
            return Ok(Some(record.owner()));
        }
        let theirs = tables.is_foreign(&self.network, ip.into())? || directory.has(ip);
        Ok(theirs.then(|| format!("a container of host-local ({})", directory.path().join(ip.to_string()).display())))
    }

    /// The next address of the set.
    fn next(&self, tables: &mut Tables<'_>, directory: &Directory, set: &RangeSet) -> Result<Address, IpamError> {
        let mut last = tables.last(&self.network, &set.key)?;
        for _ in 0..MAX_RACES {
            let found =
                match search::first_free(tables, &self.network, &search::round(spans(set), last), &self.settings.kept)?
                {
                    Some(free) => free,
                    None => {
                        let family = set.ranges.first().map_or(0, |r| r.span.family);
                        let fits = |a| set.range_of(a).is_some() && self.settings.kept.find(a).is_none();
                        let rested = tables.longest_cooling(&self.network, family, fits)?;
                        rested.ok_or_else(|| self.exhausted(set))?
                    }
                };
            if !directory.has(found.to_ip()) {
                return Ok(found);
            }
            tables.add_foreign(&self.network, found)?;
            last = Some(found);
        }
        Err(self.exhausted(set))
    }

    /// Releases what an attachment has. Nothing is no error.
    pub(crate) fn del(&self, who: &Attachment, at: &Moment) -> Result<(Vec<IpAddr>, Vec<Reclaimed>), IpamError> {
        let store = self.store();
        let (mut released, mut reclaimed) = (Vec::new(), Vec::new());
        if store.path().exists() {
            (released, reclaimed) = store.write(|tables| {
                let mut theirs = tables.of_owner(&self.network, &who.container_id, &who.ifname)?;
                if theirs.is_empty() {
                    // Taken over from a file that did not say the interface.
                    theirs = tables.of_owner(&self.network, &who.container_id, "")?;
                }
                for address in &theirs {
                    tables.release(&self.network, *address, Some(at.now_ms))?;
                }
                let ips = theirs.into_iter().map(Address::to_ip).collect();
                Ok((ips, reclaim::after_boot(tables, &at.boot_id)?))
            })?;
        }
        if released.is_empty() {
            released = self.directory().release(&who.container_id, &who.ifname)?;
        }
        Ok((released, reclaimed))
    }

    /// Compares what is reserved with the addresses of a result.
    pub(crate) fn check(&self, who: &Attachment, ips: &[IpAddr]) -> Result<(), IpamError> {
        let theirs = self.addresses_of(who)?;
        let differs = |why: String| IpamError::Differs {
            network: self.network.clone(),
            container_id: who.container_id.clone(),
            ifname: who.ifname.clone(),
            why,
        };
        if theirs.is_empty() {
            return Err(differs("no address is reserved".into()));
        }
        let ours = |ip: &IpAddr| self.settings.sets.iter().any(|s| s.range_of((*ip).into()).is_some());
        match ips.iter().find(|ip| ours(ip) && !theirs.contains(ip)) {
            None => Ok(()),
            Some(ip) => Err(differs(format!("address {ip} is not reserved for it; it has {}", joined(&theirs)))),
        }
    }

    /// The addresses of an attachment.
    pub(crate) fn addresses_of(&self, who: &Attachment) -> Result<Vec<IpAddr>, IpamError> {
        let found = self.store().read(|view| {
            let theirs = view.of_owner(&self.network, &who.container_id, &who.ifname)?;
            if theirs.is_empty() { view.of_owner(&self.network, &who.container_id, "") } else { Ok(theirs) }
        })?;
        let theirs: Vec<IpAddr> = found.into_iter().flatten().map(Address::to_ip).collect();
        if theirs.is_empty() { self.directory().knows(&who.container_id, &who.ifname) } else { Ok(theirs) }
    }

    /// Releases what no attachment of `valid` has.
    pub(crate) fn gc(&self, valid: &BTreeSet<(&str, &str)>, at: &Moment) -> Result<Vec<Reclaimed>, IpamError> {
        let ids: BTreeSet<&str> = valid.iter().map(|(id, _)| *id).collect();
        let is_valid = |id: &str, ifname: &str| {
            if ifname.is_empty() { ids.contains(id) } else { valid.contains(&(id, ifname)) }
        };
        let why = "it is not among the valid attachments";
        let store = self.store();
        let mut freed = Vec::new();
        if store.path().exists() {
            freed = store.write(|tables| {
                let mut freed = reclaim::after_boot(tables, &at.boot_id)?;
                for (network, address, owner) in tables.reservations(Some(&self.network))? {
                    if !is_valid(&owner.container_id, &owner.ifname) {
                        tables.release(&network, address, Some(at.now_ms))?;
                        freed.push(Reclaimed { network, address: address.to_ip(), owner, why });
                    }
                }
                Ok(freed)
            })?;
        }
        for entry in self.directory().keep_only(is_valid)? {
            let owner = Record { container_id: entry.container_id, ifname: entry.ifname, ..Record::default() };
            freed.push(Reclaimed { network: self.network.clone(), address: entry.ip, owner, why });
        }
        Ok(freed)
    }

    /// Whether an ADD would get its addresses now. The first use after a reboot frees what is left over first, as ADD does.
    pub(crate) fn status(&self, at: &Moment) -> Result<Vec<Reclaimed>, IpamError> {
        let store = self.store();
        store.is_usable()?;
        let mut reclaimed = Vec::new();
        let (kind, name) = reclaim::note();
        let noted = store.read(|view| view.note(kind, name))?;
        if noted.is_some_and(|n| reclaim::is_first_use(n.as_deref(), &at.boot_id)) {
            reclaimed = store.write(|tables| reclaim::after_boot(tables, &at.boot_id))?;
        }
        store.read(|view| self.has_room(view))?;
        Ok(reclaimed)
    }

    fn duplicate(&self, who: &Attachment, address: IpAddr) -> IpamError {
        IpamError::Duplicate {
            network: self.network.clone(),
            container_id: who.container_id.clone(),
            ifname: who.ifname.clone(),
            address,
        }
    }

    pub(crate) fn exhausted(&self, set: &RangeSet) -> IpamError {
        let size = set.ranges.iter().map(|r| self.size(&r.span)).fold(0u128, u128::saturating_add);
        IpamError::Exhausted { set: set.key.clone(), ranges: ranges_text(set), size }
    }

    /// How many addresses of a span are there to be given.
    pub(crate) fn size(&self, span: &Span) -> u128 {
        let kept: u128 = self.settings.kept.iter().filter_map(|k| k.within(span)).map(|k| k.count()).sum();
        span.count().saturating_sub(kept)
    }
}

fn spans(set: &RangeSet) -> Vec<Span> {
    set.ranges.iter().map(|r| r.span).collect()
}

/// A set's ranges for messages.
pub(crate) fn ranges_text(set: &RangeSet) -> String {
    let texts: Vec<String> = set.ranges.iter().map(|r| r.span.to_string()).collect();
    texts.join(", ")
}
