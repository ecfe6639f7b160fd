//! Flag values that several binaries share: durations, addresses, lists of peers, sizes.
//!
//! Every list type is a single flag value (`a,b,c`), so it works alike as a flag, a variable and a
//! TOML array.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use monofs_model::{Error, Result};

use crate::exit::{Code, Failure};
use crate::holder::{self, PortHolder};

/// Most peers in one list.
const PEERS_MAX: usize = 4096;
/// Longest host name in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
/// Directories that systems empty at a start or after a while.
const TEMPORARY: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/run"];
/// What one "GB" of a flag is, in bytes.
pub const GIGABYTE: u64 = 1 << 30;

/// A duration such as `500ms`, `2s`, `1h30m`; `0` alone is zero. For `#[arg(value_parser =
/// args::duration)]`.
pub fn duration(text: &str) -> Result<Duration> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text.trim()).map_err(|error| {
        Error::invalid(format!(
            "{error}; write a number with a unit, such as 500ms, 2s, 10m or 1h30m"
        ))
    })
}

/// A size in GB (2^30 bytes), whole or fractional, as bytes. For `#[arg(value_parser =
/// args::gigabytes)]`.
pub fn gigabytes(text: &str) -> Result<u64> {
    let number: f64 = text
        .trim()
        .parse()
        .map_err(|_| Error::invalid("write a number of gigabytes, such as 50 or 0.5"))?;
    let bytes = number * GIGABYTE as f64;
    if !bytes.is_finite() || !(0.0..u64::MAX as f64).contains(&bytes) {
        return Err(Error::invalid(
            "write a number of gigabytes between 0 and 17 billion",
        ));
    }
    Ok(bytes as u64)
}

/// A number of bytes, with `KB`, `MB` or `GB` (2^10, 2^20, 2^30) if wanted. For `#[arg(value_parser
/// = args::bytes)]`.
pub fn bytes(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "KB" => Some(1 << 10),
        "MB" => Some(1 << 20),
        "GB" => Some(GIGABYTE),
        _ => None,
    };
    let number = digits.trim().parse::<u64>().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .ok_or_else(|| {
            Error::invalid("write a whole number of bytes, such as 500000, 800KB or 64MB")
        })
}

/// `host:port` of a peer, checked for shape only. For `#[arg(value_parser = args::address)]`.
pub fn address(text: &str) -> Result<String> {
    let (host, port) = split_address(text)?;
    if host.is_empty() || port == 0 {
        return Err(Error::invalid(format!(
            "'{}' is not an address; write host:port",
            text.escape_debug()
        )));
    }
    Ok(text.trim().to_owned())
}

/// A warning for a directory that is to last and lies where systems delete files by themselves.
/// `lost` says what would go with it.
pub fn temporary(flag: &str, directory: &Path, lost: &str) -> Option<String> {
    let full = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let is_temporary =
        TEMPORARY.iter().any(|at| full.starts_with(at)) || full.starts_with(std::env::temp_dir());
    is_temporary.then(|| {
        format!(
            "{flag} {} is in a directory for temporary files, which systems empty: {lost} would be \
             lost; choose one that is kept, such as /var/lib/monofs",
            directory.display()
        )
    })
}

/// Makes the directory that a role keeps its data in, and says in the log where that is. Errors:
/// `Refused` where it cannot be made or written to; `flag` is what names another.
pub fn data_directory(flag: &str, directory: &Path) -> std::result::Result<(), Failure> {
    let full = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let made = std::fs::create_dir_all(&full)
        .and_then(|()| rustix::fs::access(&full, rustix::fs::Access::WRITE_OK).map_err(Into::into));
    if let Err(error) = made {
        let message = format!("cannot keep data in {}: {error}", full.display());
        return Err(Failure::new(Code::Refused, message).hint(format!(
            "run it as a user who may write there, or choose another directory with {flag}"
        )));
    }
    tracing::info!(directory = %full.display(), "data are kept here ({flag})");
    Ok(())
}

/// Splits `host:port`, `[v6]:port` or `:port`.
fn split_address(text: &str) -> Result<(&str, u16)> {
    // The port is behind the last colon; an IPv6 address has colons of its own, so brackets.
    let text = text.trim();
    let wrong =
        |why: &str| Error::invalid(format!("'{}' {why}; write host:port", text.escape_debug()));
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
    let port: u16 = port
        .parse()
        .map_err(|_| wrong("has no port between 0 and 65535"))?;
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        inner
            .parse::<Ipv6Addr>()
            .map_err(|_| wrong("has a broken IPv6 address"))?;
        return Ok((inner, port));
    }
    let is_name = host
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if host.len() > HOST_BYTES_MAX || !is_name {
        return Err(wrong("has a host that is no name (put IPv6 in brackets)"));
    }
    Ok((host, port))
}

/// Where a server listens: `:9000` (every address), `host:9000`, `[::1]:9000`; port 0 lets the
/// system choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Empty = every address.
    pub host: String,
    pub port: u16,
}

impl Listen {
    /// Every address at this port.
    pub fn any(port: u16) -> Self {
        Self {
            host: String::new(),
            port,
        }
    }

    /// Binds the first address that works: IPv6 (which takes IPv4 too) and then IPv4 when no host
    /// is given. `flag` is what gives another address, for the hint. Errors: what is in the way,
    /// and what to do about it.
    pub fn bind(&self, flag: &str) -> std::result::Result<std::net::TcpListener, Failure> {
        let bound = if self.host.is_empty() {
            let any: [SocketAddr; 2] = [
                (Ipv6Addr::UNSPECIFIED, self.port).into(),
                (Ipv4Addr::UNSPECIFIED, self.port).into(),
            ];
            std::net::TcpListener::bind(any.as_slice())
        } else {
            std::net::TcpListener::bind((self.host.as_str(), self.port))
        };
        let listener = bound.map_err(|error| self.not_bound(&error, flag))?;
        // The runtime accepts on it, which must never block a thread.
        listener
            .set_nonblocking(true)
            .map_err(|error| Failure::new(Code::Failed, format!("listener on {self}: {error}")))?;
        Ok(listener)
    }

    fn not_bound(&self, error: &io::Error, flag: &str) -> Failure {
        let failed = format!("could not listen on {self}: {error}");
        if error.kind() != io::ErrorKind::AddrInUse {
            let advice = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("ports below 1024 are for root; choose another with {flag}")
                }
                _ => format!("give an address of this machine with {flag}, or only its port"),
            };
            return Failure::new(Code::Refused, failed).hint(advice);
        }
        // What has the port decides what to do about it.
        let holder = PortHolder::of(self.port);
        let by = holder.as_ref().map_or(String::new(), |holder| {
            format!(" by {} (process {})", holder.program, holder.pid)
        });
        Failure::new(Code::Refused, format!("{failed}{by}"))
            .hint(holder::advice(holder.as_ref(), flag))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Listen {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(port) = text.trim().parse() {
            return Ok(Self::any(port));
        }
        let (host, port) = split_address(text)?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// A member named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: String,
    /// The id was given, not made from the address.
    pub named: bool,
    /// `host:port`.
    pub address: String,
}

/// `id=host:port,...`. Without an id it is the first label of the host's name (`node1` for
/// `node1.internal:9000`, which is what its own `--node-id` most likely says), where that would not
/// be unique the host, else `host:port`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers(pub Vec<Peer>);

impl Deref for Peers {
    type Target = [Peer];
    fn deref(&self) -> &[Peer] {
        &self.0
    }
}

impl FromStr for Peers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // Every item is checked before any id is made.
        let mut parsed: Vec<(Option<&str>, &str)> = Vec::new();
        for item in items(text)? {
            let (id, at) = item
                .split_once('=')
                .map_or((None, item), |(id, at)| (Some(id.trim()), at.trim()));
            if let Some(id) = id {
                check_id(id)?;
            }
            address(at)?;
            parsed.push((id, at));
        }
        // Where no id is given, the shortest name that no other peer has.
        let names: Vec<[&str; 3]> = parsed.iter().map(|(_, at)| names_of(at)).collect();
        let mut peers: Vec<Peer> = Vec::with_capacity(parsed.len());
        for (index, (id, at)) in parsed.iter().enumerate() {
            let rank = (0..2)
                .find(|rank| is_unique(&names, names[index][*rank], *rank))
                .unwrap_or(2);
            let named = id.is_some();
            let id = id.unwrap_or(names[index][rank]).to_owned();
            if peers.iter().any(|peer| peer.id == id) {
                return Err(Error::invalid(format!(
                    "'{id}' is there twice; give every member an id of its own"
                )));
            }
            peers.push(Peer {
                id,
                named,
                address: (*at).to_owned(),
            });
        }
        Ok(Self(peers))
    }
}

/// Whether only one peer has this name among those of a rank.
fn is_unique(names: &[[&str; 3]], name: &str, rank: usize) -> bool {
    names.iter().filter(|other| other[rank] == name).count() == 1
}

/// `id=value,...`, such as weights (`n1=2.0,n2=0.5`) or zones (`n1=eu-west`).
#[derive(Debug, Clone, PartialEq)]
pub struct Keyed<T>(pub BTreeMap<String, T>);

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Deref for Keyed<T> {
    type Target = BTreeMap<String, T>;
    fn deref(&self) -> &BTreeMap<String, T> {
        &self.0
    }
}

impl<T: FromStr> FromStr for Keyed<T>
where
    T::Err: fmt::Display,
{
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut map = BTreeMap::new();
        for item in items(text)? {
            let wrong = |why: &dyn fmt::Display| {
                Error::invalid(format!(
                    "'{}': {why}; write id=value,...",
                    item.escape_debug()
                ))
            };
            let (id, value) = item.split_once('=').ok_or_else(|| wrong(&"has no '='"))?;
            check_id(id.trim())?;
            let value = value
                .trim()
                .parse()
                .map_err(|error: T::Err| wrong(&error))?;
            if map.insert(id.trim().to_owned(), value).is_some() {
                return Err(wrong(&"the id is there twice"));
            }
        }
        Ok(Self(map))
    }
}

/// What a member at `host:port` may be called, the shortest first: an IP address has no labels.
fn names_of(at: &str) -> [&str; 3] {
    let host = at.rsplit_once(':').map_or(at, |(host, _)| host);
    let literal = host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok();
    let label = if literal {
        host
    } else {
        host.split('.').next().unwrap_or(host)
    };
    [label, host, at]
}

fn items(text: &str) -> Result<Vec<&str>> {
    let items: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect();
    if items.len() > PEERS_MAX {
        return Err(Error::invalid(format!("has more than {PEERS_MAX} items")));
    }
    Ok(items)
}

/// Ids appear in file names, log lines and metrics.
fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if id.is_empty()
        || id.len() > HOST_BYTES_MAX
        || !id.chars().all(allowed)
        || id.starts_with(['-', '.'])
    {
        let shown = id.escape_debug();
        return Err(Error::invalid(format!(
            "'{shown}' is not an id; use letters, digits, '.', '-', '_' and ':'"
        )));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        for bad in ["", "10", "-1s", "1 parsec", "99999999999999999999y"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn gigabytes_may_be_fractions() {
        assert_eq!(gigabytes("50").unwrap(), 50 << 30);
        assert_eq!(gigabytes("0.5").unwrap(), 1 << 29);
        for bad in ["", "ten", "-1", "inf", "NaN", "1e300"] {
            assert!(gigabytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn directories_that_systems_empty_are_warned_about() {
        let warned = |path: &str| temporary("--db-path", Path::new(path), "the copies");
        let text = warned("/tmp/monofs-db").unwrap();
        assert!(text.contains("--db-path /tmp/monofs-db") && text.contains("the copies"));
        assert!(warned("/var/tmp/x").is_some() && warned("/dev/shm/x").is_some());
        assert!(warned("/var/lib/monofs/db").is_none() && warned("/tmpfile/x").is_none());
    }

    #[test]
    fn a_data_directory_is_made_or_its_flag_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let missing = parent.path().join("made/when/missing");
        data_directory("--db-path", &missing).unwrap();
        assert!(missing.is_dir());
        let file = parent.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let failure = data_directory("--db-path", &file).unwrap_err();
        assert!(failure.hint.unwrap().contains("with --db-path"));
    }

    #[test]
    fn listen_addresses_take_every_usual_form() {
        let listen = |text: &str| text.parse::<Listen>().map(|listen| listen.to_string());
        assert_eq!(listen(":9000").unwrap(), ":9000");
        assert_eq!(listen("9000").unwrap(), ":9000");
        assert_eq!(listen("0.0.0.0:0").unwrap(), "0.0.0.0:0");
        assert_eq!(listen("[::1]:9000").unwrap(), "[::1]:9000");
        assert_eq!(
            listen("node-1.example.com:9000").unwrap(),
            "node-1.example.com:9000"
        );
        for bad in [
            "",
            "host",
            "host:",
            "host:70000",
            "::1:9000",
            "[::x]:1",
            "a b:1",
            "http://host:1",
        ] {
            assert!(listen(bad).is_err(), "{bad:?}");
        }
        let free = Listen::any(0).bind("--addr").unwrap();
        assert!(free.local_addr().unwrap().port() > 0);
    }

    #[test]
    fn an_address_that_is_taken_says_by_whom_and_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let again: Listen = taken.local_addr().unwrap().to_string().parse().unwrap();
        let failure = again.bind("--http-addr").unwrap_err();
        assert_eq!(failure.code, Code::Refused);
        let process = format!("(process {})", std::process::id());
        for part in ["could not listen on 127.0.0.1:", process.as_str()] {
            assert!(failure.message.contains(part), "{failure}");
        }
        let hint = failure.hint.unwrap();
        assert!(hint.contains("another with --http-addr"), "{hint}");

        let elsewhere: Listen = "192.0.2.1:0".parse().unwrap();
        let hint = elsewhere.bind("--addr").unwrap_err().hint.unwrap();
        assert!(hint.contains("an address of this machine"), "{hint}");
    }

    #[test]
    fn peers_without_ids_are_named_after_their_hosts() {
        let peers = |text: &str| {
            text.parse::<Peers>().map(|peers| {
                peers
                    .0
                    .into_iter()
                    .map(|p| format!("{}={}", p.id, p.address))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(peers("n1=a:1, n2=b:2,").unwrap(), ["n1=a:1", "n2=b:2"]);
        assert_eq!(peers("a:1,b:2").unwrap(), ["a=a:1", "b=b:2"]);
        assert_eq!(
            peers("monofs-node-0.monofs-node:9000,monofs-node-1.monofs-node:9000").unwrap(),
            [
                "monofs-node-0=monofs-node-0.monofs-node:9000",
                "monofs-node-1=monofs-node-1.monofs-node:9000"
            ]
        );
        assert_eq!(
            peers("n.eu:1,n.us:1").unwrap(),
            ["n.eu=n.eu:1", "n.us=n.us:1"]
        );
        assert_eq!(
            peers("10.0.0.1:1,10.0.0.2:1").unwrap(),
            ["10.0.0.1=10.0.0.1:1", "10.0.0.2=10.0.0.2:1"]
        );
        assert_eq!(
            peers("127.0.0.1:1,127.0.0.1:2").unwrap(),
            ["127.0.0.1:1=127.0.0.1:1", "127.0.0.1:2=127.0.0.1:2"]
        );
        assert!(peers("").unwrap().is_empty());
        let named: Vec<_> = "n1=a:1,b:2"
            .parse::<Peers>()
            .unwrap()
            .iter()
            .map(|peer| peer.named)
            .collect();
        assert_eq!(named, [true, false]);
        for bad in [
            "n1=a:1,n1=b:2",
            "=a:1",
            "n1=",
            "n1=a",
            "a",
            "n/1=a:1",
            "n1=a:0",
            "a:1,a:1",
        ] {
            assert!(peers(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keyed_values_are_checked_one_by_one() {
        assert_eq!("n1=2.5,n2=1".parse::<Keyed<f64>>().unwrap().len(), 2);
        assert!(
            "n1=x"
                .parse::<Keyed<f64>>()
                .unwrap_err()
                .message
                .contains("'n1=x'")
        );
        assert!("n1=1,n1=2".parse::<Keyed<f64>>().is_err());
        assert!("n1".parse::<Keyed<String>>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".*") {
            let _ = duration(&text);
            let _ = gigabytes(&text);
            let _ = address(&text);
            let _ = text.parse::<Listen>();
            let _ = text.parse::<Peers>();
            let _ = text.parse::<Keyed<f64>>();
        }
    }
}
