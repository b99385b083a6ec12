//! `CNI_ARGS`: `NAME=VALUE` pairs with `;` between them. Deprecated, and sent by every runtime.

use crate::error::{Code, Failure};

/// What says that names which nobody knows are no error.
const IGNORE_UNKNOWN: &str = "IgnoreUnknown";

/// The pairs of `CNI_ARGS`, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniArgs {
    pairs: Vec<(String, String)>,
}

impl CniArgs {
    /// Reads them; the empty text has none.
    ///
    /// # Errors
    /// [`Code::BadEnvironment`] for a part that is no pair.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let Some((name, value)) = part.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                let msg = format!("CNI_ARGS has {part:?}, which is not of the form NAME=VALUE");
                return Err(Failure::new(Code::BadEnvironment, msg));
            };
            pairs.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self { pairs })
    }

    /// The value of a name; the last if it is there more than once.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Checks that every name is one of these, unless `IgnoreUnknown` is true.
    ///
    /// # Errors
    /// [`Code::BadEnvironment`] with the names that are not.
    pub fn only(&self, known: &[&str]) -> Result<(), Failure> {
        if self.get(IGNORE_UNKNOWN).is_some_and(is_true) {
            return Ok(());
        }
        let unknown = self.pairs.iter().map(|(name, _)| name.as_str());
        let unknown: Vec<&str> = unknown.filter(|n| *n != IGNORE_UNKNOWN && !known.contains(n)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let msg = format!("CNI_ARGS has {}, which this plugin does not know", unknown.join(", "));
        let next = "leave them out, or say IgnoreUnknown=1 in front of them";
        Err(Failure::new(Code::BadEnvironment, msg).details(next))
    }
}

/// As Go reads a truth value, or "yes" and "on", which the reference library knows too.
fn is_true(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "1" | "t" | "true" | "yes" | "on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_in_order_and_the_last_of_a_name_counts() {
        let args = CniArgs::parse("IgnoreUnknown=1;IP=10.1.2.3;K8S_POD_NAME=web=1;IP=10.1.2.4").expect("pairs");
        assert_eq!(args.get("IP"), Some("10.1.2.4"));
        assert_eq!(args.get("K8S_POD_NAME"), Some("web=1"));
        assert_eq!(args.get("MAC"), None);
    }

    #[test]
    fn no_text_and_empty_parts_are_no_pairs() {
        assert_eq!(CniArgs::parse(""), Ok(CniArgs::default()));
        assert_eq!(CniArgs::parse(";;").map(|a| a.get("").map(str::to_owned)), Ok(None));
    }

    #[test]
    fn a_part_that_is_no_pair_is_a_bad_environment() {
        for bad in ["IP", "=1", "IP=1;x"] {
            assert!(CniArgs::parse(bad).is_err_and(|e| e.is(Code::BadEnvironment)), "{bad}");
        }
    }

    #[test]
    fn unknown_names_are_refused_unless_they_are_to_be_ignored() {
        let args = CniArgs::parse("IP=10.1.2.3;COLOUR=red").expect("pairs");
        let refused = args.only(&["IP"]).expect_err("COLOUR is not known");
        assert!(refused.msg.contains("COLOUR") && !refused.msg.contains("IP"), "{refused}");
        for truth in ["1", "true", "TRUE", "yes"] {
            let args = CniArgs::parse(&format!("IgnoreUnknown={truth};COLOUR=red")).expect("pairs");
            assert_eq!(args.only(&[]), Ok(()), "{truth}");
        }
        let args = CniArgs::parse("IgnoreUnknown=0;COLOUR=red").expect("pairs");
        assert!(args.only(&[]).is_err());
    }
}
