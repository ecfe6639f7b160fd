//! The one mapping between [`ErrorKind`] and gRPC statuses.
//!
//! The exact kind travels in the metadata key [`KIND_KEY`]; the code alone decides when a peer does
//! not send it (a proxy, or tonic itself).

use monofs_model::{Error, ErrorKind};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata key of the exact error kind.
pub const KIND_KEY: &str = "monofs-error-kind";

/// The status that carries this error.
pub fn to_status(error: Error) -> Status {
    let code = match error.kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::NotHeld => Code::OutOfRange,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Refused => Code::FailedPrecondition,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Full => Code::ResourceExhausted,
        ErrorKind::Internal => Code::Internal,
    };
    let mut status = Status::new(code, error.message);
    status
        .metadata_mut()
        .insert(KIND_KEY, MetadataValue::from_static(error.kind.as_str()));
    status
}

/// The error that a status carries.
pub fn from_status(status: Status) -> Error {
    let told = status
        .metadata()
        .get(KIND_KEY)
        .and_then(|value| value.to_str().ok())
        .and_then(ErrorKind::parse);
    let kind = told.unwrap_or(match status.code() {
        Code::NotFound => ErrorKind::NotFound,
        Code::InvalidArgument | Code::AlreadyExists => ErrorKind::Invalid,
        Code::FailedPrecondition
        | Code::Aborted
        | Code::PermissionDenied
        | Code::Unauthenticated => ErrorKind::Refused,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            ErrorKind::Unavailable
        }
        Code::DataLoss => ErrorKind::Corrupt,
        Code::ResourceExhausted => ErrorKind::Full,
        _ => ErrorKind::Internal,
    });
    let message = if status.message().is_empty() {
        status.code().to_string()
    } else {
        status.message().to_owned()
    };
    let message = match told {
        Some(_) => message,
        // What the transport says names neither peer nor cause on its own.
        None => match std::error::Error::source(&status) {
            Some(source) => format!("{message}: {}", root_cause(source)),
            None => message,
        },
    };
    Error { kind, message }
}

fn root_cause(mut error: &dyn std::error::Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in ErrorKind::ALL {
            let error = Error {
                kind,
                message: "what happened".into(),
            };
            assert_eq!(from_status(to_status(error.clone())), error);
        }
        assert_eq!(
            from_status(Status::deadline_exceeded("late")).kind,
            ErrorKind::Unavailable
        );
    }
}
