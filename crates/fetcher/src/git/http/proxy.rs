//! Which proxy the environment puts between us and a host: for messages, as the client finds it by
//! the same rules.

use hyper_util::client::proxy::matcher::Matcher;
use tonic::codegen::http::Uri;

/// The proxy for `url`, without its login. `None` when it is reached directly.
pub fn of(url: &str) -> Option<String> {
    chosen(&Matcher::from_env(), url)
}

fn chosen(matcher: &Matcher, url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let proxy = matcher.intercept(&uri)?;
    let address = proxy.uri().authority()?.as_str();
    let (_, host) = address.rsplit_once('@').unwrap_or(("", address));
    Some(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_named_without_its_login_and_exceptions_have_none() {
        let matcher = Matcher::builder()
            .https("http://robot:s3cret@proxy.example.org:3128")
            .no("internal.example.org")
            .build();
        let of = |url| chosen(&matcher, url);
        assert_eq!(
            of("https://git.example.com/a/b").as_deref(),
            Some("proxy.example.org:3128")
        );
        assert_eq!(of("https://internal.example.org/a/b"), None);
        assert_eq!(of("http://git.example.com/a/b"), None);
    }
}
