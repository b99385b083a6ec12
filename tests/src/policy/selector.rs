//! Label selectors, as `metav1.LabelSelector` has them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use std::collections::BTreeMap;

/// Labels of an object.
pub(super) type Labels = BTreeMap<String, String>;

static NONE: Labels = Labels::new();

/// The labels of an object, as many as there are.
pub(super) fn labels_of(metadata: &ObjectMeta) -> &Labels {
    metadata.labels.as_ref().unwrap_or(&NONE)
}

/// Whether labels are what a selector asks for: all of it. An empty selector asks for nothing and so matches all. (What
/// a selector that is not there matches is said by the field that it is not in.)
pub(super) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let same = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    selector.match_labels.iter().flatten().all(same)
        && selector.match_expressions.iter().flatten().all(|requirement| meets(requirement, labels))
}

fn meets(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = value.is_some_and(|value| requirement.values.iter().flatten().any(|of| of == value));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}
