//! What can go wrong between the plugin and the switch.

use crate::error::{Code, Failure};
use std::error::Error;
use std::path::{Path, PathBuf};

/// Why the switch did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// Nobody answers.
    #[error("the switch on {} is away: {why}", socket.display())]
    Away {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the system says.
        why: String,
    },
    /// It does not answer in time.
    #[error("the switch on {} does not answer within {seconds} s", socket.display())]
    Slow {
        /// Where it is.
        socket: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// It answered, and refuses.
    #[error("{why}")]
    Refused {
        /// What kind of refusal it is.
        code: Code,
        /// The switch's words.
        why: String,
    },
    /// This process was asked to end.
    #[error("the operation was ended by a signal")]
    Interrupted,
}

impl SwitchError {
    pub(super) fn of_status(socket: &Path, status: &tonic::Status) -> Self {
        use tonic::Code as Grpc;
        // The switch itself answers with a status and no source; a source is what broke the connection.
        let mut source = status.source();
        let mut why = status.message().to_owned();
        let broke = source.is_some() || matches!(status.code(), Grpc::Unavailable | Grpc::Cancelled);
        while let Some(error) = source {
            why = error.to_string();
            source = error.source();
        }
        if broke {
            return Self::Away { socket: socket.to_owned(), why };
        }
        let code = match status.code() {
            Grpc::DeadlineExceeded | Grpc::ResourceExhausted => Code::TryAgainLater,
            // It undid what nobody confirmed.
            Grpc::FailedPrecondition if why.contains("the node's controller has not") => Code::TryAgainLater,
            Grpc::AlreadyExists if why.contains("host port") => Code::HostPortTaken,
            Grpc::AlreadyExists => Code::NameTaken,
            Grpc::InvalidArgument => Code::InvalidConfig,
            Grpc::Unimplemented => {
                why =
                    format!("the switch on {} does not know this request: it is of another version", socket.display());
                Code::SwitchRefused
            }
            _ => Code::SwitchRefused,
        };
        Self::Refused { code, why }
    }

    /// Whether what was asked for may have been done all the same.
    pub fn is_unsure(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

impl From<SwitchError> for Failure {
    fn from(error: SwitchError) -> Self {
        let msg = error.to_string();
        match error {
            SwitchError::Away { .. } => {
                Self::new(Code::TryAgainLater, msg).details("start sluiced, or name its socket by the key `socket`")
            }
            SwitchError::Slow { .. } => {
                Self::new(Code::TryAgainLater, msg).details("see what it is doing: sluice status")
            }
            SwitchError::Refused { code, .. } => Self::new(code, msg),
            SwitchError::Interrupted => Self::new(Code::Interrupted, msg),
        }
    }
}
