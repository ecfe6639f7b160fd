//! One small set of error kinds, named by what the caller must do next.
//!
//! Three places alone translate a kind: `rpc::status` (gRPC), `client::errno` (FUSE)
//! and `launch::exit` (exit codes and hints).

use std::fmt;

use crate::pause::HostPause;

/// What the caller must do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It does not exist; asking again gives the same answer.
    NotFound,
    /// This replica does not hold it; ask the next one. Not a failure.
    NotHeld,
    /// The input is wrong; correct it.
    Invalid,
    /// The state or the rights forbid it; change those first.
    Refused,
    /// Could not be reached or did not answer in time; try another replica, or later.
    Unavailable,
    /// Bytes do not match their object id or format; take another copy.
    Corrupt,
    /// A disk, map or bound is full; make room.
    Full,
    /// A defect or an unexpected answer of the operating system; report it.
    Internal,
}

impl ErrorKind {
    /// All kinds, for exhaustive tables and tests.
    pub const ALL: [ErrorKind; 8] = [
        ErrorKind::NotFound,
        ErrorKind::NotHeld,
        ErrorKind::Invalid,
        ErrorKind::Refused,
        ErrorKind::Unavailable,
        ErrorKind::Corrupt,
        ErrorKind::Full,
        ErrorKind::Internal,
    ];

    /// The stable word used on the wire, in JSON and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "not_found",
            ErrorKind::NotHeld => "not_held",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Refused => "refused",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Full => "full",
            ErrorKind::Internal => "internal",
        }
    }

    /// The inverse of [`ErrorKind::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as it crosses a role's boundary: a kind to act on and one line to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    /// One line: what happened and where. Never holds credentials.
    pub message: String,
    /// Set when a remote host wants to be left alone for a while: asking sooner does not help.
    pub pause: Option<Box<HostPause>>,
}

/// The result of everything that can cross a role's boundary.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $(
                #[doc = concat!("An error of kind [`ErrorKind::", stringify!($kind), "`].")]
                pub fn $name(message: impl Into<String>) -> Self {
                    Self::new(ErrorKind::$kind, message)
                }
            )*
        }
    };
}

constructors! {
    not_found => NotFound,
    not_held => NotHeld,
    invalid => Invalid,
    refused => Refused,
    unavailable => Unavailable,
    corrupt => Corrupt,
    full => Full,
    internal => Internal,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            pause: None,
        }
    }

    /// The same error with what was being done in front.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The same error, which says that a remote host is to be left alone.
    pub fn with_pause(mut self, pause: HostPause) -> Self {
        self.pause = Some(Box::new(pause));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_word() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::parse(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn words_are_told_apart_and_an_unknown_one_is_no_kind() {
        let words: std::collections::BTreeSet<_> =
            ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), ErrorKind::ALL.len());
        assert_eq!(ErrorKind::parse("teapot"), None);
        assert_eq!(ErrorKind::parse(""), None);
    }

    #[test]
    fn what_was_being_done_stands_in_front_and_the_kind_stays() {
        let error = Error::full("no space left")
            .context("write pack-1")
            .context("fetch h/x");
        assert_eq!(error.kind, ErrorKind::Full);
        assert_eq!(error.to_string(), "fetch h/x: write pack-1: no space left");
    }
}
