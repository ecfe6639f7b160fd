//! A host and perhaps a port, the way users name one in a table of hosts.
//!
//! Invariant: host names are in lower case and addresses in their shortest form, so equal hosts are
//! equal here.

use std::fmt;

use super::parse;
use crate::error::{Error, Result};

/// A remote host: a name or an address, and the port when one is named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteHost {
    /// The name in lower case, or an address without brackets.
    pub host: String,
    /// The port, when one is named.
    pub port: Option<u16>,
}

impl RemoteHost {
    /// Parses `host`, `host:port`, `address` or `[address]:port`. Errors: `Invalid`, also for a port
    /// that no host has.
    pub fn new(text: &str) -> Result<Self> {
        let wrong = |why: &dyn fmt::Display| {
            Error::invalid(format!("host '{}': {why}", text.escape_debug()))
        };
        let (host, port) = parse::split_port(text).map_err(|fault| wrong(&fault))?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for RemoteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (false, None) => f.write_str(&self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (true, None) => write!(f, "[{}]", self.host),
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_equal_however_they_are_written() {
        for (text, shown) in [
            ("LocalHost", "localhost"),
            ("Host.Example:8443", "host.example:8443"),
            ("host:0022", "host:22"),
            ("[::1]", "[::1]"),
            ("::1", "[::1]"),
            ("[0:0::1]:2222", "[::1]:2222"),
            ("127.0.0.1:81", "127.0.0.1:81"),
        ] {
            assert_eq!(RemoteHost::new(text).unwrap().to_string(), shown, "{text}");
        }
        for bad in [
            "",
            "host:99999",
            "host:0",
            "host:x",
            "[::1",
            "[host]",
            "a b",
            "u@h",
            "h/p",
            "-x",
        ] {
            assert!(RemoteHost::new(bad).is_err(), "{bad}");
        }
    }
}
