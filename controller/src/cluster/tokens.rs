//! Whose token it is: asked of the API server, which has given it.

use crate::stream::Review;
use crate::watch::link::{Link, chain};
use futures::FutureExt;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Api;
use kube::api::PostParams;
use std::time::Duration;
use tokio::time::timeout;

/// Whom a token has to be for.
pub(super) const AUDIENCE: &str = "sluice-cluster";
/// The service account of the node role.
const ACCOUNT: &str = "sluice";
/// What a token that is bound to a Pod says of the Pod's node (Kubernetes 1.30 and later).
const NODE: &str = "authentication.kubernetes.io/node-name";
/// How long the API server may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Has tokens looked at by the API server that `link` leads to.
pub(super) fn review(link: Link, namespace: &str) -> Review {
    let user = format!("system:serviceaccount:{namespace}:{ACCOUNT}");
    std::sync::Arc::new(move |token| {
        let (mut link, user) = (link.clone(), user.clone());
        async move {
            let asking = async {
                let client = link.client().await.ok_or("no API server answers")?;
                let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token) };
                let review = TokenReview { spec, ..TokenReview::default() };
                let answer = Api::<TokenReview>::all(client).create(&PostParams::default(), &review).await;
                answer.map_err(|error| format!("cannot have the token looked at: {}", chain(&error)))
            };
            let answer = timeout(ANSWER_WITHIN, asking).await;
            let answer = answer.map_err(|_| "the API server does not say whose token it is".to_owned())??;
            node(answer.status.unwrap_or_default(), &user)
        }
        .boxed()
    })
}

/// The node that a token is bound to, if it is one of the node role's.
fn node(status: TokenReviewStatus, user: &str) -> Result<String, String> {
    let who = status.user.unwrap_or_default();
    if status.authenticated != Some(true) {
        return Err(format!("the token is not good: {}", status.error.unwrap_or_else(|| "no reason given".to_owned())));
    }
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE) {
        return Err(format!("the token is not for {AUDIENCE}"));
    }
    if who.username.as_deref() != Some(user) {
        return Err(format!("the token is of {}, and has to be of {user}", who.username.unwrap_or_default()));
    }
    match who.extra.unwrap_or_default().remove(NODE).as_deref() {
        Some([name]) if !name.is_empty() => Ok(name.clone()),
        _ => Err(format!("the token does not say its node ({NODE}); Kubernetes 1.30 and later do")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const USER: &str = "system:serviceaccount:sluice-system:sluice";

    fn good() -> Value {
        json!({
            "authenticated": true,
            "audiences": [AUDIENCE],
            "user": {"username": USER, "extra": {NODE: ["n1"]}},
        })
    }

    fn asked(status: Value) -> Result<String, String> {
        node(serde_json::from_value(status).unwrap(), USER)
    }

    #[test]
    fn a_token_of_the_node_role_names_its_node_and_no_other_one_does() {
        assert_eq!(asked(good()), Ok("n1".to_owned()));
        let wrong = [
            ("/authenticated", json!(false)),
            ("/audiences", json!(["https://kubernetes.default.svc"])),
            ("/audiences", json!([])),
            ("/user/username", json!("system:serviceaccount:shop:sluice")),
            ("/user/username", json!("system:serviceaccount:sluice-system:default")),
            ("/user/extra", json!({})),
            ("/user/extra", json!({NODE: []})),
            ("/user/extra", json!({NODE: ["n1", "n2"]})),
            ("/user/extra", json!({NODE: [""]})),
        ];
        for (place, value) in wrong {
            let mut status = good();
            *status.pointer_mut(place).unwrap() = value;
            assert!(asked(status.clone()).is_err(), "{status}");
        }
        assert!(asked(json!({})).is_err());
    }
}
