//! Texts that may be sources, made fit for messages.

/// The text with what looks like credentials of a source taken out: what stands before the `@` of a
/// host, and what follows the `?` or `#` of a URL.
pub fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return redact_scp(text);
    };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let authority = &rest[..authority_end];
    // A password with a slash ends the host early: what then passes for a port is none.
    let cut_short = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit()));
    let at = if authority.contains('@') || !cut_short {
        authority.rfind('@')
    } else {
        rest.rfind('@')
    };
    let shown = match at {
        Some(at) => format!("{scheme}://***@{}", &rest[at + 1..]),
        None => text.to_owned(),
    };
    match (scheme, shown.find(['?', '#'])) {
        ("http" | "https", Some(at)) => format!("{}***", &shown[..=at]),
        _ => shown,
    }
}

/// The same for `host:path`, where a colon before the `@` may stand before a password.
fn redact_scp(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, rest)) if before.contains(':') && !before.contains('@') => {
            let colon = before.find(':').unwrap_or(0);
            format!("{}:***@{rest}", &before[..colon])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_wherever_they_stand() {
        for (text, shown) in [
            ("https://me:pw@host/x", "https://***@host/x"),
            ("https://pw@host/x", "https://***@host/x"),
            ("https://me:p/w@host/x", "https://***@host/x"),
            ("https:/me:pw@host/x", "https:***@host/x"),
            ("me:pw@host:x", "me:***@host:x"),
            ("https://host/x?token=pw", "https://host/x?***"),
            ("https://host/x#pw", "https://host/x#***"),
            ("https://host/x@v1", "https://host/x@v1"),
            ("git@host:x", "git@host:x"),
            ("git@host:x@v1", "git@host:x@v1"),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }
}
