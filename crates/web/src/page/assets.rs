//! The files beside the pages: style, scripts and icon, embedded in the binary. No file of this
//! host is ever read.
//!
//! A file's URL names its contents, so browsers keep it for ever. Routers of two versions may stand
//! behind one balancer: one that is asked for other contents than it has gives its own, not to be
//! kept.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "assets"]
struct Files;

const KEEP: &str = "public, max-age=31536000, immutable";
const ASK_AGAIN: &str = "no-cache";

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Urls {
    pub css: String,
    pub theme: String,
    pub actions: String,
    pub live: String,
    pub icon: String,
}

/// The URLs of this binary's files.
pub(super) static URLS: LazyLock<Urls> = LazyLock::new(|| {
    let url = |name: &str| {
        let mark = Files::get(name)
            .map(|file| mark(&file.metadata.sha256_hash()))
            .unwrap_or_default();
        format!("/assets/{mark}/{name}")
    };
    let css = url("app.css");
    let theme = url("theme.js");
    let actions = url("actions.js");
    Urls {
        css,
        theme,
        actions,
        live: url("live.js"),
        icon: url("icon.svg"),
    }
});

/// What names the contents of a file in its URL.
fn mark(hash: &[u8; 32]) -> String {
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, end)| end) {
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// `/assets/{mark}/{name}`.
pub(super) async fn get(
    Path((asked, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(file) = Files::get(&name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mark = mark(&file.metadata.sha256_hash());
    let tag = format!("\"{mark}\"");
    let same = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let keep = if asked == mark { KEEP } else { ASK_AGAIN };
    let about = [
        (header::CACHE_CONTROL, keep.to_owned()),
        (header::ETAG, tag),
        (header::CONTENT_TYPE, content_type(&name).to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    match same {
        true => (StatusCode::NOT_MODIFIED, about).into_response(),
        false => (about, file.data).into_response(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn ask(url: &str, tag: Option<&str>) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(tag) = tag {
            headers.insert(header::IF_NONE_MATCH, tag.parse().unwrap());
        }
        let parts: Vec<String> = url.split('/').skip(2).map(str::to_owned).collect();
        get(Path((parts[0].clone(), parts[1].clone())), headers).await
    }

    #[tokio::test]
    async fn files_are_kept_under_their_own_url_and_asked_for_again_under_another() {
        let own = ask(&URLS.css, None).await;
        assert_eq!(own.status(), StatusCode::OK);
        assert_eq!(own.headers()[header::CACHE_CONTROL], KEEP);
        assert_eq!(
            own.headers()[header::CONTENT_TYPE],
            "text/css; charset=utf-8"
        );
        let tag = own.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert!(!to_bytes(own.into_body(), 1 << 20).await.unwrap().is_empty());
        let again = ask(&URLS.css, Some(&tag)).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        let other = ask("/assets/0000000000000000/app.css", None).await;
        assert_eq!(
            (other.status(), &other.headers()[header::CACHE_CONTROL]),
            (StatusCode::OK, &ASK_AGAIN.parse().unwrap())
        );
        for outside in [
            "/assets/x/Cargo.toml",
            "/assets/x/..%2fCargo.toml",
            "/assets/x/nothing.css",
        ] {
            assert_eq!(
                ask(outside, None).await.status(),
                StatusCode::NOT_FOUND,
                "{outside}"
            );
        }
    }
}
