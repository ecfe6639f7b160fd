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
use xxhash_rust::xxh3::xxh3_64;

/// A file that is part of the binary.
struct EmbeddedFile {
    name: &'static str,
    contents: &'static [u8],
}

/// All that are served. What the directory holds besides is not.
const FILES: [EmbeddedFile; 5] = [
    EmbeddedFile {
        name: "app.css",
        contents: include_bytes!("../../assets/app.css"),
    },
    EmbeddedFile {
        name: "theme.js",
        contents: include_bytes!("../../assets/theme.js"),
    },
    EmbeddedFile {
        name: "actions.js",
        contents: include_bytes!("../../assets/actions.js"),
    },
    EmbeddedFile {
        name: "live.js",
        contents: include_bytes!("../../assets/live.js"),
    },
    EmbeddedFile {
        name: "icon.svg",
        contents: include_bytes!("../../assets/icon.svg"),
    },
];

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
pub(super) static URLS: LazyLock<Urls> = LazyLock::new(|| Urls {
    css: url("app.css"),
    theme: url("theme.js"),
    actions: url("actions.js"),
    live: url("live.js"),
    icon: url("icon.svg"),
});

fn url(name: &str) -> String {
    let mark = embedded(name).map(mark).unwrap_or_default();
    format!("/assets/{mark}/{name}")
}

fn embedded(name: &str) -> Option<&'static EmbeddedFile> {
    FILES.iter().find(|file| file.name == name)
}

/// What names the contents of a file in its URL.
fn mark(file: &EmbeddedFile) -> String {
    format!("{:016x}", xxh3_64(file.contents))
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
    let Some(file) = embedded(&name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mark = mark(file);
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
        false => (about, file.contents).into_response(),
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
