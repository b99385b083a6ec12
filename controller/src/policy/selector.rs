//! Labels and what selects by them, in a fixed form: selectors that ask for the same in other words of the API are equal.
//!
//! `matchLabels` are the same as `In` with one value. What is asked for is sorted and there once. The text of a selector is
//! what `kubectl -l` takes, but for quotes around what no label can have in it, so that no two selectors have one text.

use crate::facts::policy::GroupKey;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::net::IpAddr;

/// The label that the API server gives every namespace: its name.
pub(super) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Labels of an object, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    pub(super) fn of(labels: Option<&BTreeMap<String, String>>) -> Self {
        let labels = labels.into_iter().flatten();
        Self(labels.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect())
    }

    /// The labels of a namespace.
    pub(super) fn of_namespace(name: &str, labels: Option<&BTreeMap<String, String>>) -> Self {
        let mut labels = labels.cloned().unwrap_or_default();
        labels.insert(NAMESPACE_NAME.to_owned(), name.to_owned());
        Self::of(Some(&labels))
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(of, _)| (**of).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

/// What is asked of one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Requirement {
    /// It has one of these values, of which there is one at least.
    In(Box<str>, Vec<Box<str>>),
    /// It has none of these values, or is not there.
    NotIn(Box<str>, Vec<Box<str>>),
    /// It is there.
    Exists(Box<str>),
    /// It is not there.
    Missing(Box<str>),
}

impl Requirement {
    fn read(requirement: &LabelSelectorRequirement) -> Result<Self, String> {
        let key: Box<str> = requirement.key.as_str().into();
        let mut values: Vec<Box<str>> =
            requirement.values.iter().flatten().map(|value| value.as_str().into()).collect();
        values.sort();
        values.dedup();
        match (requirement.operator.as_str(), values.is_empty()) {
            ("In", false) => Ok(Self::In(key, values)),
            ("NotIn", false) => Ok(Self::NotIn(key, values)),
            ("Exists", true) => Ok(Self::Exists(key)),
            ("DoesNotExist", true) => Ok(Self::Missing(key)),
            ("In" | "NotIn", true) => Err(format!("the selector's {} of {key:?} has no values", requirement.operator)),
            ("Exists" | "DoesNotExist", false) => {
                Err(format!("the selector's {} of {key:?} has values", requirement.operator))
            }
            (operator, _) => Err(format!("the selector's operator {operator:?} is none that is known")),
        }
    }

    /// The label that it is about.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::In(key, _) | Self::NotIn(key, _) | Self::Exists(key) | Self::Missing(key) => key,
        }
    }

    pub(super) fn matches(&self, labels: &Labels) -> bool {
        let among = |key: &str, values: &[Box<str>]| {
            labels.get(key).is_some_and(|value| values.binary_search_by(|of| (**of).cmp(value)).is_ok())
        };
        match self {
            Self::In(key, values) => among(key, values),
            Self::NotIn(key, values) => !among(key, values),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::Missing(key) => labels.get(key).is_none(),
        }
    }
}

impl Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(key, values) if values.len() == 1 => write!(f, "{}={}", Word(key), Word(&values[0])),
            Self::NotIn(key, values) if values.len() == 1 => write!(f, "{}!={}", Word(key), Word(&values[0])),
            Self::In(key, values) => write!(f, "{} in ({})", Word(key), Words(values)),
            Self::NotIn(key, values) => write!(f, "{} notin ({})", Word(key), Words(values)),
            Self::Exists(key) => write!(f, "{}", Word(key)),
            Self::Missing(key) => write!(f, "!{}", Word(key)),
        }
    }
}

/// A word as it is, or in quotes if it has more in it than labels and names can have.
struct Word<'a>(&'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if !self.0.is_empty() && self.0.bytes().all(is_plain) { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}

struct Words<'a>(&'a [Box<str>]);

impl Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.0.iter().map(|word| Word(word)))
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, list: impl Iterator<Item = impl Display>) -> fmt::Result {
    for (index, item) in list.enumerate() {
        if index > 0 {
            f.write_char(',')?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

/// What is asked of labels, all of it: sorted, each once. Nothing is asked if it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Requirements(Vec<Requirement>);

impl Requirements {
    /// # Errors
    ///
    /// What of the selector cannot be read.
    pub(super) fn read(selector: &LabelSelector) -> Result<Self, String> {
        let labels = selector.match_labels.iter().flatten();
        let labels = labels.map(|(key, value)| Ok(Requirement::In(key.as_str().into(), vec![value.as_str().into()])));
        let expressions = selector.match_expressions.iter().flatten().map(Requirement::read);
        let mut all = labels.chain(expressions).collect::<Result<Vec<_>, _>>()?;
        all.sort();
        all.dedup();
        Ok(Self(all))
    }

    pub(super) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter()
    }
}

impl Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.0.iter())
    }
}

/// Where members of a group are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Among nodes.
    Nodes,
    /// Among the Pods of a namespace.
    Namespace(Box<str>),
    /// Among the Pods of namespaces with such labels. A namespace that we have not seen is none of them.
    Namespaces(Requirements),
}

/// Addresses: those of a network, but for parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) net: IpNet,
    pub(super) except: Vec<IpNet>,
}

impl Block {
    pub(super) fn contains(&self, address: &IpAddr) -> bool {
        self.net.contains(address) && !self.except.iter().any(|net| net.contains(address))
    }
}

/// What makes a Pod or a node a member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) scope: Scope,
    /// What is asked of its labels.
    pub(super) labels: Requirements,
    /// It has addresses there, and is a member with those alone.
    pub(super) block: Option<Block>,
    /// It is for policies to be about: a node hears of the members on itself alone.
    pub(super) is_subject: bool,
}

impl Selector {
    /// Pods of some namespaces, or nodes.
    pub(super) const fn new(scope: Scope, labels: Requirements) -> Self {
        Self { scope, labels, block: None, is_subject: false }
    }

    /// Pods that a policy is about.
    pub(super) fn subjects(self) -> Self {
        Self { is_subject: true, ..self }
    }

    /// All Pods, or those with addresses in a block.
    pub(super) fn all_pods(block: Option<Block>) -> Self {
        Self {
            scope: Scope::Namespaces(Requirements::default()),
            labels: Requirements::default(),
            block,
            is_subject: false,
        }
    }

    /// What a group of it is called.
    pub(super) fn key(&self) -> GroupKey {
        let kind = if self.is_subject { "subjects" } else { "pods" };
        let mut text = match &self.scope {
            Scope::Nodes => format!("nodes({}", self.labels),
            Scope::Namespace(name) => format!("{kind}(ns={};{}", Word(name), self.labels),
            Scope::Namespaces(namespaces) => format!("{kind}(ns:{namespaces};{}", self.labels),
        };
        if let Some(Block { net, except }) = &self.block {
            text.push_str(&format!(";in {net}"));
            for net in except {
                text.push_str(&format!(" but {net}"));
            }
        }
        text.push(')');
        GroupKey(text.into())
    }

    /// Whether an object of the scope is a member.
    pub(super) fn matches(&self, labels: &Labels, addresses: &[IpAddr]) -> bool {
        self.labels.matches(labels)
            && self.block.as_ref().is_none_or(|block| addresses.iter().any(|address| block.contains(address)))
    }
}
