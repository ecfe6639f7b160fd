//! What is wrong with the cluster, each with the command to type next, and the one word about it
//! all.

use serde::Serialize;
use utoipa::ToSchema;

/// How well the cluster does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Healthy,
    /// Something is wrong or held back; readers are served.
    Degraded,
    /// It cannot do its work: readers are not served.
    Unhealthy,
}

impl Health {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Something wrong, and the command line to type next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// One line that ends with what to do.
    pub problem: String,
    /// The command line of ours that the line names first.
    pub next: Option<String>,
    /// The router cannot do its work; `null` = not known.
    pub critical: Option<bool>,
}

impl Finding {
    /// A problem with the command that leads on.
    pub fn new(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            next: Some(next.into()),
            critical: None,
        }
    }

    /// A line of a router, which names commands between backquotes.
    pub fn said(line: &str) -> Self {
        Self {
            problem: line.to_owned(),
            next: command_in(line).map(str::to_owned),
            critical: None,
        }
    }
}

/// The first command line of ours between backquotes.
fn command_in(line: &str) -> Option<&str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let mut commands =
        quoted.filter(|text| text.starts_with("monofs-") || text.starts_with("etcdctl "));
    commands.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_line_is_the_first_of_ours_between_backquotes() {
        let line =
            "n1 is `x`: stop it and `monofs-admin undrain --node=n1`, or `monofs-admin nodes`";
        assert_eq!(command_in(line), Some("monofs-admin undrain --node=n1"));
        assert_eq!(
            command_in("the state store is away (`etcdctl endpoint health`)"),
            Some("etcdctl endpoint health")
        );
        assert_eq!(command_in("monofs-admin without quotes"), None);
    }
}
