//! Pods as a switch knows them: attachments with the labels that the CNI plugin gives them.

use crate::client::Client;
use crate::failure::Failure;
use sluice_proto::v1::{Attachment, ListAttachmentsRequest};

/// The Pod that an attachment is of: `NAMESPACE/NAME`.
pub(crate) fn pod_of(attachment: &Attachment) -> Option<String> {
    let labels = &attachment.spec.as_ref()?.labels;
    Some(format!("{}/{}", labels.get("k8s.namespace")?, labels.get("k8s.pod")?))
}

/// Every attachment of a switch.
///
/// # Errors
/// The switch does not answer.
pub(crate) fn attachments(client: &Client) -> Result<Vec<Attachment>, Failure> {
    let parts = client.collect(client.attachments().list_attachments(ListAttachmentsRequest::default()))?;
    Ok(parts.into_iter().flat_map(|part| part.attachments).collect())
}

/// The attachment of a Pod, by `NAMESPACE/NAME`; of two, as while a Pod is made anew under its name, the newer.
///
/// # Errors
/// There is none: the Pod is on another node, or has the host's network.
pub(crate) fn find_pod(client: &Client, name: &str) -> Result<Attachment, Failure> {
    let name = name.strip_prefix("pod:").unwrap_or(name);
    if !name.contains('/') {
        return Err(Failure::usage(format!("`{name}` names no Pod")).next(format!("default/{name}: NAMESPACE/NAME")));
    }
    let all = attachments(client)?;
    let near = || {
        let known = all.iter().filter_map(pod_of);
        known.min_by_key(|known| strsim::damerau_levenshtein(known, name))
    };
    let found = all.iter().filter(|a| pod_of(a).as_deref() == Some(name)).max_by_key(|a| a.created_unix_s);
    found.cloned().ok_or_else(|| {
        let failure = Failure::new(format!("no Pod {name} is attached to this switch"))
            .why("it is on another node, or it has the host's network");
        match near().filter(|near| strsim::damerau_levenshtein(near, name) <= name.len() / 3) {
            Some(near) => failure.next(format!("did you mean {near}? `sluice cni list` shows all")),
            None => failure.next("sluice cni list; kubectl get pods -A -o wide"),
        }
    })
}
