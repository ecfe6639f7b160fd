//! The one mapping between [`ErrorKind`] and gRPC statuses.
//!
//! The exact kind travels in the metadata key [`KIND_KEY`]; the code alone decides when a peer does
//! not send it (a proxy, or tonic itself). What a remote host said about being asked again travels
//! in [`PAUSE_KEY`], so that no role between the fetcher and the reader asks sooner.

use monofs_model::{Error, ErrorKind, HostPause};
use monofs_proto::v1;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata key of the exact error kind.
pub const KIND_KEY: &str = "monofs-error-kind";
/// Metadata key of the [`HostPause`] of an error, as a protobuf message.
pub const PAUSE_KEY: &str = "monofs-host-pause-bin";

/// The status that carries this error.
pub fn to_status(error: Error) -> Status {
    // The code is for peers that know nothing of our kinds; each kind has a code of its own.
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

    // The exact kind and the pause travel beside it.
    let mut status = Status::new(code, error.message);
    status
        .metadata_mut()
        .insert(KIND_KEY, MetadataValue::from_static(error.kind.as_str()));
    if let Some(pause) = error.pause {
        let bytes = v1::HostPause::from(&*pause).encode_to_vec();
        status
            .metadata_mut()
            .insert_bin(PAUSE_KEY, MetadataValue::from_bytes(&bytes));
    }
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
    Error {
        kind,
        message,
        pause: pause_of(&status),
    }
}

/// What the status says about a remote host; what cannot be read counts as not sent.
fn pause_of(status: &Status) -> Option<Box<HostPause>> {
    let bytes = status.metadata().get_bin(PAUSE_KEY)?.to_bytes().ok()?;
    let wire = v1::HostPause::decode(bytes).ok()?;
    Some(Box::new(HostPause::from(&wire)))
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
            let error = Error::new(kind, "what happened");
            assert_eq!(from_status(to_status(error.clone())), error);
        }
        assert_eq!(
            from_status(Status::deadline_exceeded("late")).kind,
            ErrorKind::Unavailable
        );
    }

    #[test]
    fn what_a_host_said_about_being_asked_again_survives_every_hop() {
        let pause = HostPause {
            host: "git.example.org:8443".into(),
            cause: "HTTP 429".into(),
            retry_after: std::time::Duration::from_millis(3_600_250),
        };
        let error = Error::unavailable("not now").with_pause(pause);
        let hop = from_status(to_status(error.clone())).context("through another role");
        let last = from_status(to_status(hop));
        assert_eq!(last.pause, error.pause);
        let mut status = Status::unavailable("x");
        let nonsense = MetadataValue::from_bytes(&[0xff; 9]);
        status.metadata_mut().insert_bin(PAUSE_KEY, nonsense);
        assert_eq!(from_status(status).pause, None);
    }

    #[test]
    fn a_status_that_is_not_ours_is_understood_by_its_code() {
        let kinds = [
            (Code::NotFound, ErrorKind::NotFound),
            (Code::AlreadyExists, ErrorKind::Invalid),
            (Code::PermissionDenied, ErrorKind::Refused),
            (Code::Unauthenticated, ErrorKind::Refused),
            (Code::Cancelled, ErrorKind::Unavailable),
            (Code::Unknown, ErrorKind::Unavailable),
            (Code::ResourceExhausted, ErrorKind::Full),
            (Code::DataLoss, ErrorKind::Corrupt),
            (Code::Unimplemented, ErrorKind::Internal),
        ];
        for (code, kind) in kinds {
            let error = from_status(Status::new(code, ""));
            assert_eq!(error.kind, kind, "{code:?}");
            assert!(!error.message.is_empty(), "every error says something");
        }
    }

    #[test]
    fn a_kind_that_is_unknown_here_counts_as_not_sent() {
        let mut status = Status::not_found("no such thing");
        let newer = MetadataValue::from_static("gone_for_good");
        status.metadata_mut().insert(KIND_KEY, newer);
        assert_eq!(from_status(status), Error::not_found("no such thing"));
    }

    #[tokio::test]
    async fn a_failed_connection_is_named_by_its_cause() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let channel = crate::ChannelPool::default()
            .get(&address.to_string())
            .expect("an address");
        let status = tonic_health::pb::health_client::HealthClient::new(channel)
            .check(tonic_health::pb::HealthCheckRequest::default())
            .await
            .expect_err("nothing listens there");
        let error = from_status(status);
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.contains("refused"), "{error}");
    }
}
