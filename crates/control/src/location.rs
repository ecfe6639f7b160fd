//! Where the control state lives, as an operator writes it.

use std::path::PathBuf;

use monofs_model::{Error, Result};

/// Where the control state lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateLocation {
    /// LMDB in this directory: one router.
    Embedded(PathBuf),
    /// Shared by any number of routers: etcd at these `host:port`, below a prefix of its keys.
    Etcd {
        endpoints: Vec<String>,
        prefix: String,
    },
}

/// Below which keys of etcd a cluster keeps its state, unless it is said otherwise.
const ETCD_PREFIX: &str = "monofs";

impl StateLocation {
    /// Understands `embedded:DIRECTORY` and `etcd://HOST:PORT,HOST:PORT/PREFIX`. Errors: `Invalid`,
    /// with how to write it.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(dir) = text.strip_prefix("embedded:").filter(|dir| !dir.is_empty()) {
            return Ok(Self::Embedded(dir.into()));
        }
        let rest = text
            .strip_prefix("etcd://")
            .ok_or_else(|| wrong_location(text))?;
        // Hosts, and a prefix unless it is left out.
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ETCD_PREFIX));
        let endpoints: Vec<String> = hosts
            .split(',')
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect();
        let prefix = prefix.trim_matches('/');
        if endpoints.is_empty() {
            return Err(wrong_location(text));
        }
        Ok(Self::Etcd {
            endpoints,
            prefix: if prefix.is_empty() {
                ETCD_PREFIX
            } else {
                prefix
            }
            .to_owned(),
        })
    }
}

fn wrong_location(text: &str) -> Error {
    Error::invalid(format!(
        "--state '{}': write embedded:DIRECTORY or etcd://HOST:PORT,HOST:PORT/PREFIX",
        text.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_by_their_scheme() {
        let etcd = |endpoints: &[&str], prefix: &str| StateLocation::Etcd {
            endpoints: endpoints
                .iter()
                .map(|endpoint| (*endpoint).to_owned())
                .collect(),
            prefix: prefix.to_owned(),
        };
        let parsed = |text| StateLocation::parse(text).expect("well written");
        assert_eq!(
            parsed("embedded:/var/lib/x"),
            StateLocation::Embedded("/var/lib/x".into())
        );
        assert_eq!(parsed("etcd://a:2379"), etcd(&["a:2379"], "monofs"));
        assert_eq!(
            parsed("etcd://a:2379,b:2379/prod/one"),
            etcd(&["a:2379", "b:2379"], "prod/one")
        );
        for wrong in [
            "",
            "embedded:",
            "etcd://",
            "etcd:///x",
            "/var/lib/x",
            "redis://a:1",
        ] {
            let error = StateLocation::parse(wrong).expect_err(wrong);
            assert!(
                error
                    .message
                    .contains("write embedded:DIRECTORY or etcd://"),
                "{error}"
            );
        }
    }
}
