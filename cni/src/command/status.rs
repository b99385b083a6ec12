//! STATUS: whether an ADD would work now. Runtimes ask every few seconds, so it takes milliseconds, and it is the truth: the
//! switch itself is asked, and whoever manages the addresses.

use super::{Call, add};
use crate::error::{Code, Failure};
use crate::link;
use crate::spec::{Attachment, Config};
use crate::switch::Switch;

/// Succeeds if an ADD would.
///
/// # Errors
/// [`Code::NotAvailable`] if not, [`Code::NotAvailableLimited`] if attachments that are there may suffer too.
pub(super) fn run(call: Call<'_>) -> Result<(), Failure> {
    let config = Config::read(call.input, call.environment)?;
    let ipam = call.ipam();
    let mut waiter = call.waiter;
    let asked = Switch::connect(&mut waiter, &config.base.socket).and_then(|mut switch| {
        let network = add::asked(&config, &mut switch, &mut waiter)?;
        network.map(|network| switch.ready(&mut waiter, network)).transpose()
    });
    let ready = match asked {
        Ok(Some(ready)) => ready,
        Ok(None) => {
            let failure = add::not_set_up(&config);
            return Err(unavailable(false, failure.msg, failure.details));
        }
        Err(error) => {
            let failure = Failure::from(error);
            // Their frames go through the switch.
            let limited = link::ours(&Attachment::alias_prefix(&config.base.name)).is_ok_and(|l| !l.is_empty());
            return Err(unavailable(limited, failure.msg, failure.details));
        }
    };
    if !ready.problems.is_empty() {
        let limited = !ready.limits.is_empty();
        return Err(unavailable(limited, ready.problems.join("; "), ready.limits.join("; ")));
    }
    match ipam.and_then(|ipam| Ok(ipam.status()?)) {
        Err(failure) if failure.is(Code::NotAvailableLimited) || failure.is(Code::InvalidConfig) => Err(failure),
        Err(failure) => Err(unavailable(false, failure.msg, failure.details)),
        Ok(()) => Ok(()),
    }
}

fn unavailable(limited: bool, msg: String, details: String) -> Failure {
    Failure::new(if limited { Code::NotAvailableLimited } else { Code::NotAvailable }, msg).details(details)
}
