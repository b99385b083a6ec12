//! What the control side refuses, as gRPC statuses. The messages are meant for people as they are.

use crate::ControlError;
use crate::config::SetupError;
use crate::port::PortError;
use tonic::{Code, Status};

/// The status for what the control side refused.
pub(super) fn status(error: ControlError) -> Status {
    let code = match &error {
        ControlError::NoBridge { .. }
        | ControlError::NoPort { .. }
        | ControlError::NoMirror { .. }
        | ControlError::UnknownPort { .. } => Code::NotFound,
        ControlError::BridgeExists { .. } | ControlError::PortExists { .. } | ControlError::NumberTaken { .. } => {
            Code::AlreadyExists
        }
        ControlError::BadName { .. }
        | ControlError::BadNumber { .. }
        | ControlError::Change { .. }
        | ControlError::Mirror { .. }
        | ControlError::Splice { .. }
        | ControlError::Capture { .. } => Code::InvalidArgument,
        ControlError::TooManyBridges | ControlError::NoNumberLeft { .. } | ControlError::Worker { .. } => {
            Code::ResourceExhausted
        }
        ControlError::Port(error) => return port_status(error),
        ControlError::Ending => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

/// The status for a device that refused.
fn port_status(error: &PortError) -> Status {
    let code = match error {
        PortError::NoPrivilege { .. } | PortError::NoBpf { .. } => Code::PermissionDenied,
        PortError::NoDevice { .. } => Code::NotFound,
        PortError::NameTaken { .. } => Code::AlreadyExists,
        PortError::Name { .. } | PortError::Mtu { .. } | PortError::Option { .. } | PortError::NoQueue { .. } => {
            Code::InvalidArgument
        }
        _ => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

/// The status for a setting that cannot be, or that was refused.
pub(super) fn setup_status(error: SetupError) -> Status {
    match error {
        SetupError::Control(error) => status(error),
        error @ SetupError::Gateway(_) => Status::failed_precondition(error.to_string()),
        SetupError::Name(_)
        | SetupError::Router(_)
        | SetupError::Spec { .. }
        | SetupError::Flow { .. }
        | SetupError::Conntrack(_) => Status::invalid_argument(error.to_string()),
    }
}
