//! What the API server refuses, in words that say which right is missing.

use super::NAMESPACE;
use crate::failure::Failure;
use crate::output::Exit;
use kube::Error;
use kube::client::UpgradeConnectionError;

/// Why we could not `do_what`, for which a user needs `right`: a verb and a resource, such as `list pods`.
pub(super) fn failed(server: &str, do_what: &str, right: &str, error: Error) -> Failure {
    match error {
        Error::Api(status) if status.code == 404 => Failure::new(format!("cannot {do_what}: {}", status.message)),
        Error::Api(status) if status.code == 403 => forbidden(do_what, right).why(status.message),
        Error::Api(status) if status.code == 401 => stranger(server),
        Error::Api(status) => Failure::new(format!("cannot {do_what}")).why(status.message),
        Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => match code.as_u16() {
            403 => forbidden(do_what, right),
            401 => stranger(server),
            404 => Failure::new(format!("cannot {do_what}"))
                .why("the Pod, or its container, is gone")
                .next(format!("kubectl -n {NAMESPACE} get pods -o wide"))
                .exit(Exit::NoDaemon),
            _ => Failure::new(format!("cannot {do_what}"))
                .why(format!("the API server, or the kubelet behind it, answered {code}"))
                .next(format!("kubectl -n {NAMESPACE} get pods -o wide; are the containers running?"))
                .exit(Exit::NoDaemon),
        },
        Error::Service(_) | Error::HyperError(_) => Failure::new(format!("cannot reach the API server at {server}"))
            .why(chain(&error))
            .next("kubectl cluster-info; another cluster is chosen with --context or --kubeconfig")
            .exit(Exit::NoDaemon),
        error => Failure::new(format!("cannot {do_what}")).why(chain(&error)),
    }
}

fn forbidden(do_what: &str, right: &str) -> Failure {
    Failure::new(format!("not allowed to {do_what}"))
        .next(format!(
            "ask for a Role with: {right}, in the namespace {NAMESPACE}; kubectl auth can-i ... tells what there is"
        ))
        .exit(Exit::NoPrivilege)
}

fn stranger(server: &str) -> Failure {
    Failure::new(format!("the API server at {server} does not know this user"))
        .next("kubectl auth whoami; the kubeconfig's token or certificate may have ended")
        .exit(Exit::NoPrivilege)
}

/// An error with its causes, the last of which usually says most.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(code: u16) -> Error {
        Error::Api(Status { code, message: "pods is forbidden".to_owned(), ..Status::default() }.boxed())
    }

    #[test]
    fn a_missing_right_is_named_and_ends_with_77() {
        let failure = failed("https://a", "list the Pods of Sluice", "list pods", api(403));
        assert_eq!(failure.exit_code(), Exit::NoPrivilege);
        let text = failure.to_string();
        assert!(text.contains("not allowed to list the Pods of Sluice") && text.contains("list pods"), "{text}");
    }

    #[test]
    fn a_refused_exec_says_so_although_the_answer_has_no_words() {
        let refused = UpgradeConnectionError::ProtocolSwitch(http_403());
        let failure =
            failed("https://a", "run a command", "get and create pods/exec", Error::UpgradeConnection(refused));
        assert_eq!(failure.exit_code(), Exit::NoPrivilege);
        assert!(failure.to_string().contains("pods/exec"), "{failure}");
    }

    fn http_403() -> tonic::codegen::http::StatusCode {
        tonic::codegen::http::StatusCode::FORBIDDEN
    }

    #[test]
    fn an_unknown_user_is_told_apart_from_one_without_rights() {
        let text = failed("https://a", "list", "list pods", api(401)).to_string();
        assert!(text.contains("does not know this user"), "{text}");
    }
}
