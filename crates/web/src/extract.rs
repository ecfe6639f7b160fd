//! What requests carry, taken out and checked: every wrong one is answered with the one shape of an
//! error.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use monofs_model::{Actor, Error};
use monofs_rpc::context;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::HttpError;
use monofs_api::percent::percent_decoded;

/// Longest body of a request, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;
/// Longest query of a request, in bytes.
const QUERY_BYTES_MAX: usize = 16 << 10;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body; without one, an empty object.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, _: &S) -> Result<Self, HttpError> {
        let reading = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX);
        let bytes: Bytes = tokio::time::timeout(BODY_TIMEOUT, reading)
            .await
            .map_err(|_| late_body())?
            .map_err(|_| large_body())?;
        let text: &[u8] = if bytes.trim_ascii().is_empty() {
            b"{}"
        } else {
            &bytes
        };
        match serde_json::from_slice(text) {
            Ok(body) => Ok(Self(body)),
            Err(error) => Err(not_as_expected("body", &error)),
        }
    }
}

fn late_body() -> HttpError {
    HttpError::of_http(
        StatusCode::REQUEST_TIMEOUT,
        "the body did not arrive in time",
        "send it again",
    )
}

fn large_body() -> HttpError {
    let message = format!("the body is longer than {BODY_BYTES_MAX} bytes, or ended early");
    HttpError::of_http(StatusCode::PAYLOAD_TOO_LARGE, message, "send less")
}

/// The error for a part of a request that cannot be understood.
fn not_as_expected(part: &str, error: &dyn std::fmt::Display) -> HttpError {
    Error::invalid(format!("the {part} is not what it should be: {error}")).into()
}

/// The parameters after the `?`.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        check_length(parts)?;
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(query) => Ok(Self(query.0)),
            Err(error) => Err(not_as_expected("query", &error)),
        }
    }
}

/// The same, with values as bytes: names in the tree need not be UTF-8.
pub(super) struct RawQuery(Vec<(String, Vec<u8>)>);

impl<S: Send + Sync> FromRequestParts<S> for RawQuery {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        check_length(parts)?;
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(
            query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(parameter)
                .collect(),
        ))
    }
}

/// One parameter of a query, decoded.
fn parameter(pair: &str) -> (String, Vec<u8>) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let name = String::from_utf8_lossy(&decoded(name)).into_owned();
    (name, decoded(value))
}

/// A part of a query: percent-encoded, with plus signs for blanks.
fn decoded(text: &str) -> Vec<u8> {
    percent_decoded(&text.replace('+', " "))
}

impl RawQuery {
    /// The only value of `name`. Errors: there are several.
    pub fn bytes(&self, name: &str) -> Result<Option<&[u8]>, Error> {
        let mut values = self
            .0
            .iter()
            .filter(|(found, _)| found == name)
            .map(|(_, value)| value.as_slice());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Error::invalid(format!("'{name}' is given more than once"))),
        }
    }

    /// The same, as text. Errors: it is no UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        let value = self.bytes(name)?.map(std::str::from_utf8);
        value
            .transpose()
            .map_err(|_| Error::invalid(format!("'{name}' is no UTF-8")))
    }

    /// The same, as whatever it stands for. Errors: it does not.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let wrong = |_| Error::invalid(format!("'{name}' cannot be '{}'", text.escape_debug()));
        text.parse().map(Some).map_err(wrong)
    }

    /// Errors: there is a parameter that is none of these.
    pub fn only(&self, names: &[&str]) -> Result<(), Error> {
        match self
            .0
            .iter()
            .find(|(name, _)| !names.contains(&name.as_str()))
        {
            None => Ok(()),
            Some((name, _)) => {
                let known = names.join("', '");
                Err(Error::invalid(format!(
                    "there is no parameter '{}'; there are '{known}'",
                    name.escape_debug()
                )))
            }
        }
    }
}

fn check_length(parts: &Parts) -> Result<(), HttpError> {
    match parts.uri.query().map_or(0, str::len) {
        0..=QUERY_BYTES_MAX => Ok(()),
        _ => {
            Err(Error::invalid(format!("the query is longer than {QUERY_BYTES_MAX} bytes")).into())
        }
    }
}

/// One component of the path, decoded.
pub(super) struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state);
        match path.await {
            Ok(path) => Ok(Self(path.0)),
            Err(_) => Err(Error::invalid("the path of the request is no UTF-8").into()),
        }
    }
}

/// The actor of the request: on whose behalf a verb that it asks for is done.
pub(super) struct RequestActor(pub Actor);

impl<S: Send + Sync> FromRequestParts<S> for RequestActor {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(context::actor()))
    }
}

/// A document as the answer.
pub(super) struct Document<T>(pub T);

impl<T: Serialize> IntoResponse for Document<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}
