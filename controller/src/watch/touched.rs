//! What has to be looked at again.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// What a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A node, by its name.
    Node,
    /// A Service or its EndpointSlices, as `NAMESPACE/NAME`.
    Service,
    /// The networks of Services' addresses; the name is empty.
    ServiceCidrs,
}

/// Names that were touched and not looked at yet. A name is there once, however often it was touched.
#[derive(Debug, Default)]
pub struct Touched {
    names: Mutex<BTreeSet<(Kind, String)>>,
    notify: Notify,
}

impl Touched {
    /// Notes names.
    pub fn touch(&self, kind: Kind, names: impl IntoIterator<Item = String>) {
        let mut all = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.len();
        all.extend(names.into_iter().map(|name| (kind, name)));
        if all.len() != before {
            self.notify.notify_one();
        }
    }

    /// Waits until there is a name. It may have been taken when this returns.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }

    /// Takes all names.
    pub fn take(&self) -> BTreeSet<(Kind, String)> {
        std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_is_touched_twice_is_taken_once() {
        let touched = Touched::default();
        touched.touch(Kind::Service, ["a/b".to_owned()]);
        touched.touch(Kind::Service, ["a/b".to_owned(), "a/c".to_owned()]);
        touched.wait().await;
        let names: Vec<_> = touched.take().into_iter().collect();
        assert_eq!(names, [(Kind::Service, "a/b".to_owned()), (Kind::Service, "a/c".to_owned())]);
        assert!(touched.take().is_empty());
    }
}
