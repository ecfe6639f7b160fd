//! The parser of sources: what Git's `connect.c` and `url.c` do with a text, step by step.
//!
//! Invariant: where Git would go to one place and the text reads as another (a port that no host
//! has, a host that is no name), the answer is an error, never a default.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use super::Scheme;

/// Sources of package registries, which get a parser of their own: a host with such a name is
/// written as `ssh://NAME/...`.
const PACKAGE_PREFIXES: [&str; 4] = ["go", "crates", "npm", "pypi"];
/// How tokens of well-known forges begin.
const TOKEN_PREFIXES: [&str; 10] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gldt-",
    "ATBB",
    "ATCTT",
];
/// A user name of at least so many letters and digits and nothing else is taken for a token.
const TOKEN_CHARS_MIN: usize = 32;

/// What is wrong with a source.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SourceFault {
    #[error("looks like an option; give a URL")]
    Option,
    #[error("has a control character")]
    Control,
    #[error("remote helpers such as 'ext::' are not allowed")]
    Helper,
    #[error("use https, http, ssh, git or file")]
    Scheme,
    #[error(
        "is neither a URL nor an absolute path: write https://HOST/PATH, USER@HOST:PATH or /PATH"
    )]
    Form,
    #[error("a URL has two slashes behind its scheme: write {0}://HOST/PATH")]
    Slashes(String),
    #[error(
        "packages of '{0}:' are not a source yet; a Git host of that name is written \
         ssh://{0}/PATH"
    )]
    Package(String),
    #[error("has a password; put credentials in the fetcher's --credentials file")]
    Password,
    #[error("has credentials; put them in the fetcher's --credentials file")]
    Credentials,
    #[error("git:// has no user; write git://HOST/PATH or ssh://USER@HOST/PATH")]
    NoUser,
    #[error("a file URL has no host: write file:///path")]
    FileHost,
    #[error("has no usable host name")]
    Host,
    #[error("has a user name with a character that no remote accepts")]
    User,
    #[error("has a port that no host has: write a number from 1 to 65535 behind the host, or none")]
    Port,
    #[error("has no IPv6 address in its brackets")]
    Address,
    #[error("names no repository")]
    NoPath,
    #[error("has a '..' segment")]
    Parent,
    #[error("has a path that looks like an option")]
    PathOption,
    #[error("has white space, which a URL writes as %20")]
    Space,
    #[error("has a '{0}', which no URL of a repository has; a path writes it as %{1}")]
    Query(char, &'static str),
    #[error("has escapes that are not UTF-8")]
    NotUtf8,
}

type ParseResult<T> = std::result::Result<T, SourceFault>;

/// A source in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SourceParts {
    pub scheme: Scheme,
    /// As written for http, decoded otherwise.
    pub user: Option<String>,
    /// In lower case, without brackets; empty for files.
    pub host: String,
    pub port: Option<u16>,
    /// As written for http, decoded otherwise; relative to a home directory when it does not start
    /// with `/`.
    pub path: String,
}

/// Takes a source apart.
pub(super) fn parse(text: &str) -> ParseResult<SourceParts> {
    if text.starts_with('-') {
        return Err(SourceFault::Option);
    }
    if text.chars().any(char::is_control) {
        return Err(SourceFault::Control);
    }
    if names_helper(text) {
        return Err(SourceFault::Helper);
    }
    let parts = match text.split_once("://") {
        Some((scheme, rest)) => match parse_scheme(scheme)? {
            scheme @ (Scheme::Http | Scheme::Https) => parse_http(scheme, rest)?,
            Scheme::File => parse_file(&decode(rest)?)?,
            scheme => parse_connected(scheme, &decode(rest)?)?,
        },
        None if is_local(text) => parse_local(text)?,
        None => parse_scp(text)?,
    };
    check_path(&parts)?;
    Ok(parts)
}

/// As Git has it: letters of a scheme, then two colons. An IPv6 address has them behind a bracket.
fn names_helper(text: &str) -> bool {
    let scheme_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    text.split_once(':')
        .is_some_and(|(helper, rest)| rest.starts_with(':') && helper.chars().all(scheme_letter))
}

fn parse_scheme(word: &str) -> ParseResult<Scheme> {
    Ok(match word {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        "ssh" | "git+ssh" | "ssh+git" => Scheme::Ssh,
        "git" => Scheme::Git,
        "file" => Scheme::File,
        _ if PACKAGE_PREFIXES.contains(&word) => return Err(SourceFault::Package(word.to_owned())),
        _ => return Err(SourceFault::Scheme),
    })
}

/// Whether Git takes a text without `://` as a path: no colon, or a slash before it.
fn is_local(text: &str) -> bool {
    match (text.find(':'), text.find('/')) {
        (None, _) => true,
        (Some(colon), Some(slash)) => slash < colon,
        (Some(_), None) => false,
    }
}

fn parse_local(text: &str) -> ParseResult<SourceParts> {
    if !text.starts_with('/') {
        return Err(SourceFault::Form);
    }
    Ok(file_at(text))
}

fn file_at(path: &str) -> SourceParts {
    SourceParts {
        scheme: Scheme::File,
        user: None,
        host: String::new(),
        port: None,
        path: path.to_owned(),
    }
}

fn parse_file(rest: &str) -> ParseResult<SourceParts> {
    let (host, path) = rest.split_at(rest.find('/').ok_or(SourceFault::NoPath)?);
    // Git drops the host and opens the path here: that is another place than the URL says.
    if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
        return Err(SourceFault::FileHost);
    }
    Ok(file_at(path))
}

/// Where Git stops to look at brackets for the host: behind the `]` of a `[` that begins the text or
/// follows an `@`.
fn bracket(text: &str) -> Option<(usize, usize)> {
    let open = match text.find("@[") {
        Some(at) => at + 1,
        None => 0,
    };
    let inside = text[open..].strip_prefix('[')?;
    let close = open + 1 + inside.find(']')?;
    Some((open, close))
}

/// `ssh` and `git` URLs without their scheme, decoded.
fn parse_connected(scheme: Scheme, rest: &str) -> ParseResult<SourceParts> {
    let after_host = bracket(rest).map_or(0, |(_, close)| close);
    let slash = rest[after_host..].find('/').ok_or(SourceFault::NoPath)?;
    let (host, path) = rest.split_at(after_host + slash);
    connected(scheme, host, path)
}

fn parse_scp(text: &str) -> ParseResult<SourceParts> {
    let after_host = bracket(text).map_or(0, |(_, close)| close);
    let colon = text[after_host..].find(':').ok_or(SourceFault::Form)?;
    let host = &text[..after_host + colon];
    let path = &text[after_host + colon + 1..];
    if PACKAGE_PREFIXES.contains(&host.to_ascii_lowercase().as_str()) {
        return Err(SourceFault::Package(host.to_ascii_lowercase()));
    }
    // `https:/host/x` reads as a URL, and Git would ask a host of that name by ssh.
    if matches!(host, "https" | "http" | "ssh" | "git" | "file" | "ftp") {
        return Err(SourceFault::Slashes(host.to_owned()));
    }
    // `user:password@host:path`, which Git reads as a path on a host `user`.
    let first = path.split('/').next().unwrap_or("");
    if !host.contains('@')
        && first
            .split_once('@')
            .is_some_and(|(_, at)| at.contains(':'))
    {
        return Err(SourceFault::Password);
    }
    connected(Scheme::Ssh, host, path)
}

fn connected(scheme: Scheme, host: &str, path: &str) -> ParseResult<SourceParts> {
    // `/~user/x` is below the home directory of that user.
    let path = path
        .strip_prefix('/')
        .filter(|rest| rest.starts_with('~'))
        .unwrap_or(path);
    let (user, host, port) = split_host(scheme, host)?;
    Ok(SourceParts {
        scheme,
        user,
        host,
        port,
        path: path.to_owned(),
    })
}

/// `user@host:port` with brackets around any part that Git lets them be around.
fn split_host(scheme: Scheme, text: &str) -> ParseResult<(Option<String>, String, Option<u16>)> {
    // Brackets go; what follows them may be a port, which nothing before them is.
    let (bare, tail_at) = match bracket(text) {
        // Git drops what stands between a bracket and the port.
        Some((_, close)) if !matches!(text.as_bytes().get(close + 1), None | Some(b':')) => {
            return Err(SourceFault::Host);
        }
        Some((open, close)) => (
            [&text[..open], &text[open + 1..close], &text[close + 1..]].concat(),
            close - 1,
        ),
        None => (text.to_owned(), 0),
    };
    let mut login = bare.as_str();
    let mut port = None;
    if let Some((before, digits)) = split_colon(&bare, tail_at)
        && let Some(found) = parse_port(digits)
    {
        login = before;
        port = found;
    }
    // Within brackets ssh takes a port, too.
    if scheme == Scheme::Ssh
        && port.is_none()
        && let Some((before, digits)) = split_colon(login, 0)
        && let Some(found @ Some(_)) = parse_port(digits)
    {
        login = before;
        port = found;
    }
    // The last `@` ends the user, as ssh has it.
    let (user, host) = match login.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, login),
    };
    if scheme == Scheme::Git && user.is_some() {
        return Err(SourceFault::NoUser);
    }
    if let Some(user) = user {
        check_user(user)?;
    }
    Ok((user.map(str::to_owned), parse_host(host)?, port))
}

/// What is around the first colon from `start` on.
fn split_colon(text: &str, start: usize) -> Option<(&str, &str)> {
    let colon = start + text[start..].find(':')?;
    Some((&text[..colon], &text[colon + 1..]))
}

/// A port, or none where the colon ends the text. `None` when it is no port at all.
fn parse_port(digits: &str) -> Option<Option<u16>> {
    if digits.is_empty() {
        return Some(None);
    }
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    let port = digits.parse::<u16>().ok().filter(|port| *port > 0)?;
    all_digits.then_some(Some(port))
}

fn check_user(user: &str) -> ParseResult<()> {
    if user.contains(':') {
        return Err(SourceFault::Password);
    }
    let odd = |c: char| c.is_control() || c.is_whitespace() || "'\"`$\\;&|<>(){}[]/%".contains(c);
    if user.is_empty() || user.starts_with('-') || user.chars().any(odd) {
        return Err(SourceFault::User);
    }
    Ok(())
}

/// A host in lower case: a name, or an address in its shortest form.
fn parse_host(host: &str) -> ParseResult<String> {
    // A colon makes it an IPv6 address, perhaps with a zone. What is none was meant as one, or as a
    // host with a port; the fault says which.
    if host.contains(':') {
        let (address, zone) = match host.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (host, None),
        };
        let Ok(address) = address.parse::<Ipv6Addr>() else {
            let letter = |c: char| c.is_ascii_hexdigit() || "[]:.%".contains(c);
            let is_address = host.matches(':').count() > 1 && host.chars().all(letter);
            return Err(if is_address || host.starts_with('[') {
                SourceFault::Address
            } else {
                SourceFault::Port
            });
        };
        return match zone {
            None => Ok(address.to_string()),
            Some(zone) if !zone.is_empty() && zone.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                Ok(format!("{address}%{zone}"))
            }
            Some(_) => Err(SourceFault::Address),
        };
    }

    // A name may not look like an option of a command.
    let letter = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || host.starts_with('-') || !host.chars().all(letter) {
        return Err(SourceFault::Host);
    }
    Ok(host.to_ascii_lowercase())
}

/// `host`, `host:port`, `address` or `[address]:port`.
pub(super) fn split_port(text: &str) -> ParseResult<(String, Option<u16>)> {
    // Brackets set an address apart from a port. Without them, a text that is an IPv6 address as a
    // whole has no port, else its last part would pass for one.
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, tail) = rest.split_once(']').ok_or(SourceFault::Address)?;
            if address
                .split('%')
                .next()
                .is_none_or(|a| a.parse::<Ipv6Addr>().is_err())
            {
                return Err(SourceFault::Address);
            }
            match (tail, tail.strip_prefix(':')) {
                ("", _) => (address, None),
                (_, Some(port)) => (address, Some(port)),
                (_, None) => return Err(SourceFault::Host),
            }
        }
        None if text.parse::<Ipv6Addr>().is_ok() => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };

    // A colon without digits stands for the usual port.
    let port = match port {
        None => None,
        Some(port) => parse_port(port).ok_or(SourceFault::Port)?,
    };
    Ok((parse_host(host)?, port))
}

/// `http` and `https` URLs without their scheme. Servers see the path as it is written.
fn parse_http(scheme: Scheme, rest: &str) -> ParseResult<SourceParts> {
    // A query or fragment would let the text choose the whole request.
    for (c, escape) in [('?', "3F"), ('#', "23")] {
        if rest.contains(c) {
            return Err(SourceFault::Query(c, escape));
        }
    }
    if rest.chars().any(char::is_whitespace) {
        return Err(SourceFault::Space);
    }
    let (authority, path) = rest.split_at(rest.find('/').ok_or(SourceFault::NoPath)?);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if let Some(user) = user {
        let decoded = decode(user)?;
        if user.contains('@') || decoded.contains(':') || looks_like_token(&decoded) {
            return Err(SourceFault::Credentials);
        }
        check_user(&decoded)?;
    }
    let (host, port) = split_port(host)?;
    // The stored path is as written, but what its escapes hide is checked.
    let decoded = decode(path)?;
    if decoded.chars().any(char::is_control) {
        return Err(SourceFault::Control);
    }
    Ok(SourceParts {
        scheme,
        user: user.map(str::to_owned),
        host,
        port,
        path: path.to_owned(),
    })
}

fn looks_like_token(user: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    TOKEN_PREFIXES.iter().any(|prefix| user.starts_with(prefix))
        || user.len() >= TOKEN_CHARS_MIN && user.chars().all(letters)
}

fn check_path(parts: &SourceParts) -> ParseResult<()> {
    let path = match parts.scheme {
        Scheme::Http | Scheme::Https => decode(&parts.path)?,
        _ => Cow::Borrowed(parts.path.as_str()),
    };
    if path.chars().any(char::is_control) {
        return Err(SourceFault::Control);
    }
    if path.trim_matches('/').is_empty() {
        return Err(SourceFault::NoPath);
    }
    if path.split('/').any(|segment| segment == "..") {
        return Err(SourceFault::Parent);
    }
    // Over http a path is never an argument.
    let is_argument = !matches!(parts.scheme, Scheme::Http | Scheme::Https);
    if is_argument && path.trim_start_matches('/').starts_with('-') {
        return Err(SourceFault::PathOption);
    }
    Ok(())
}

/// The text with its percent escapes resolved. As in Git, a `%` without two digits stands for
/// itself, and so does `%00`.
fn decode(text: &str) -> ParseResult<Cow<'_, str>> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, escaped_byte(after)) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| SourceFault::NotUtf8)
}

/// The byte that two digits stand for.
fn escaped_byte(after: &[u8]) -> Option<u8> {
    let high = char::from(*after.first()?).to_digit(16)?;
    let low = char::from(*after.get(1)?).to_digit(16)?;
    u8::try_from(high << 4 | low).ok().filter(|byte| *byte != 0)
}

/// [`decode`] of a piece of a normal form.
pub(super) fn decode_text(text: &str) -> Cow<'_, str> {
    decode(text).expect("a source whose escapes are not UTF-8 is refused")
}

/// Writes a decoded path as a URL has it: what would read as an escape and white space are escaped.
pub(super) fn encode(path: &str, out: &mut String) {
    for c in path.chars() {
        if c != '%' && !c.is_whitespace() {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}
