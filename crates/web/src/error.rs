//! The one shape of an error, `{"error":{"kind","message","hint"}}`, and the status of each kind.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use monofs_model::{Error, ErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

/// What every request that fails is answered with.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDocument {
    pub error: ErrorBody,
}

/// What went wrong, and what to do about it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What to do about it, as one word.
    pub kind: ErrorWord,
    /// One line: what happened and where.
    pub message: String,
    /// One line: what to try.
    pub hint: String,
}

/// [`ErrorKind`] as it is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ErrorKind)]
pub(crate) enum ErrorWord {
    NotFound,
    NotHeld,
    Invalid,
    Refused,
    Unavailable,
    Corrupt,
    Full,
    Internal,
}

impl From<ErrorKind> for ErrorWord {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::NotHeld => Self::NotHeld,
            ErrorKind::Invalid => Self::Invalid,
            ErrorKind::Refused => Self::Refused,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Corrupt => Self::Corrupt,
            ErrorKind::Full => Self::Full,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

/// An error on its way to whoever asked over HTTP.
#[derive(Debug)]
pub(crate) struct HttpError {
    pub status: StatusCode,
    pub kind: ErrorKind,
    pub message: String,
    pub hint: &'static str,
}

/// What handlers return.
pub(crate) type Answer<T> = std::result::Result<T, HttpError>;

impl HttpError {
    /// An error of HTTP itself: the request was wrong in a way that has a status of its own.
    pub fn of_http(status: StatusCode, message: impl Into<String>, hint: &'static str) -> Self {
        let kind = match status {
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            StatusCode::FORBIDDEN => ErrorKind::Refused,
            _ => ErrorKind::Invalid,
        };
        Self {
            status,
            kind,
            message: message.into(),
            hint,
        }
    }

    /// The document that is sent.
    pub fn document(&self) -> ErrorDocument {
        let message = self.message.clone();
        let hint = self.hint.to_owned();
        ErrorDocument {
            error: ErrorBody {
                kind: self.kind.into(),
                message,
                hint,
            },
        }
    }
}

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        let (status, hint) = match error.kind {
            ErrorKind::NotFound => (
                StatusCode::NOT_FOUND,
                "the lists below /api/v1/ show what there is",
            ),
            ErrorKind::NotHeld => (
                StatusCode::NOT_FOUND,
                "no server holds it; /api/v1/nodes shows which are down",
            ),
            ErrorKind::Invalid => (
                StatusCode::BAD_REQUEST,
                "correct the request; /api/v1/openapi.json describes all of them",
            ),
            ErrorKind::Refused => (
                StatusCode::CONFLICT,
                "the message says what stands against it; change that first",
            ),
            ErrorKind::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "try again in a moment; /health says what is wrong",
            ),
            ErrorKind::Corrupt => (
                StatusCode::BAD_GATEWAY,
                "`monofs-admin verify` finds damaged copies; try again for another copy",
            ),
            ErrorKind::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "make room or wait until some of it has ended",
            ),
            ErrorKind::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "this is a defect: look at the router's log and report it",
            ),
        };
        Self {
            status,
            kind: error.kind,
            message: error.message,
            hint,
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.document())).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static("2"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_word_and_is_an_error_of_http() {
        for kind in ErrorKind::ALL {
            let error = HttpError::from(Error::new(kind, "x"));
            assert!(error.status.is_client_error() || error.status.is_server_error());
            let document = serde_json::to_value(error.document()).expect("it is JSON");
            assert_eq!(document["error"]["kind"], kind.as_str());
            assert!(!error.hint.is_empty());
        }
    }
}
