//! Looking into the tree: directories as documents, files as bytes.

mod range;

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use monofs_api::browse::TreeDocument;
use monofs_api::percent::percent_encoded;
use monofs_model::limits::SYMLINK_BYTES_MAX;
use monofs_model::tree::EntryKind;
use monofs_model::{Error, Result};

use crate::error::Answer;
use crate::extract::{Document, RawQuery};
use crate::routes::Routes;
use crate::tree::tree_document;
use monofs_router::browse::{self, Found, Inside, Paging, TreePath, kind_word};
use monofs_router::parts::Parts;
use range::Wanted;

/// Bytes of a file that tell whether it is text.
const SNIFFED_BYTES: usize = 8 << 10;
/// A file is shown as bytes alone: nothing in it runs, whatever it says to be.
const FILE_POLICY: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Routes {
    Routes::default()
        .get("/api/v1/tree", tree)
        .get("/api/v1/file", file)
}

/// What is at a path
///
/// A directory with a part of its entries, or a file, a symlink (never followed) or a submodule.
#[utoipa::path(get, path = "/api/v1/tree", tag = "tree",
    params(
        ("path" = Option<String>, Query, max_length = 8192, description = "As on a mount; bytes \
         that are no UTF-8 percent-encoded"),
        ("offset" = Option<u32>, Query, maximum = 10_000_000, description = "Of a directory of a \
         repository: entries passed over"),
        ("after" = Option<String>, Query, max_length = 1024, description = "Above repositories: \
         only names after this one"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 5000, description = "Entries in the answer"),
        ("directories_first" = Option<bool>, Query, description = "Directories come before files"),
    ),
    responses((status = 200, body = TreeDocument)))]
pub(super) async fn tree(
    State(state): State<Arc<Parts>>,
    query: RawQuery,
) -> Answer<Document<TreeDocument>> {
    query.only(&["path", "offset", "after", "limit", "directories_first"])?;
    let path = TreePath::new(query.bytes("path")?.unwrap_or_default())?;
    let limit = query.parsed::<u32>("limit")?.map(|limit| limit as usize);
    if limit.is_some_and(|limit| !(1..=browse::PAGE_MAX).contains(&limit)) {
        return Err(Error::invalid(format!("'limit' is 1 to {}", browse::PAGE_MAX)).into());
    }
    let paging = Paging {
        offset: query.parsed::<u32>("offset")?.unwrap_or_default() as usize,
        after: query.text("after")?.unwrap_or_default().to_owned(),
        limit: limit.unwrap_or_default(),
        directories_first: query.parsed("directories_first")?.unwrap_or_default(),
    };
    let found = browse::look(&state, &path, &paging).await?;
    let target = match &found {
        Found::Entry(inside) if inside.kind == EntryKind::Symlink => {
            Some(browse::read_small(&state.fleet, inside, SYMLINK_BYTES_MAX as usize).await?)
        }
        _ => None,
    };
    Ok(Document(tree_document(&path, found, target.as_deref())))
}

/// The bytes of a file
///
/// Whole or one range of it. Text is `text/plain`, everything else `application/octet-stream`.
#[utoipa::path(get, path = "/api/v1/file", tag = "tree",
    params(
        ("path" = String, Query, max_length = 8192, description = "As on a mount; bytes that are \
         no UTF-8 percent-encoded"),
        ("download" = Option<bool>, Query, description = "For saving instead of showing"),
        ("range" = Option<String>, Header, description = "One range of bytes"),
        ("if-none-match" = Option<String>, Header, description = "The ETag of an earlier answer"),
        ("if-range" = Option<String>, Header, description = "The range only if this is the ETag"),
    ),
    responses(
        (status = 200, description = "The whole file",
            content((String = "text/plain"), (String = "application/octet-stream"))),
        (status = 206, description = "The range", content((String = "text/plain"), (String = "application/octet-stream"))),
        (status = 304, description = "It is what the ETag says"),
    ))]
pub(super) async fn file(
    State(state): State<Arc<Parts>>,
    query: RawQuery,
    headers: HeaderMap,
) -> Answer<Response> {
    query.only(&["path", "download"])?;
    let given = query
        .bytes("path")?
        .ok_or_else(|| Error::invalid("'path' is missing: which file?"))?;
    let path = TreePath::new(given)?;
    let download = query.parsed("download")?.unwrap_or(false);
    let file = find(&state, &path).await?;
    let tag = format!("\"{}\"", file.oid);
    if names(&headers, header::IF_NONE_MATCH, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let conditional =
        headers.contains_key(header::IF_RANGE) && !names(&headers, header::IF_RANGE, &tag);
    let asked = headers
        .get(header::RANGE)
        .filter(|_| !conditional)
        .and_then(|value| value.to_str().ok());
    let (status, range) = match Wanted::of(asked, file.size) {
        Wanted::Whole => (StatusCode::OK, 0..file.size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Beyond => return Ok(beyond(file.size)),
    };
    answer(
        &state,
        file,
        status,
        range,
        tag,
        download.then(|| path.components().last()).flatten(),
    )
    .await
}

/// The file at `path`. Errors: `NotFound`; `Invalid` when it is something else.
async fn find(state: &Arc<Parts>, path: &TreePath) -> Result<Inside> {
    let one = Paging {
        limit: 1,
        ..Paging::default()
    };
    let what = match browse::look(state, path, &one).await? {
        Found::Entry(inside) if matches!(inside.kind, EntryKind::File | EntryKind::Executable) => {
            return Ok(inside);
        }
        Found::Entry(inside) => kind_word(inside.kind),
        Found::Directory(_) | Found::Namespace(_) => "directory",
    };
    Err(Error::invalid(format!(
        "'{}' is a {what}, not a file; /api/v1/tree?path= shows it",
        path.shown()
    )))
}

/// Whether this header names our tag, or any.
fn names(headers: &HeaderMap, name: header::HeaderName, tag: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    values
        .map(|value| value.trim().trim_start_matches("W/"))
        .any(|value| value == tag || value == "*")
}

fn beyond(size: u64) -> Response {
    let message = format!("the range lies beyond the file, which has {size} bytes");
    let error = crate::error::HttpError::of_http(
        StatusCode::RANGE_NOT_SATISFIABLE,
        message,
        "ask for a range inside",
    );
    ([(header::CONTENT_RANGE, format!("bytes */{size}"))], error).into_response()
}

async fn answer(
    state: &Arc<Parts>,
    file: Inside,
    status: StatusCode,
    range: Range<u64>,
    tag: String,
    saved_as: Option<&Vec<u8>>,
) -> Answer<Response> {
    let start = browse::read_small(&state.fleet, &file, SNIFFED_BYTES).await?;
    let size = file.size;
    let mut response = status.into_response();
    let headers = response.headers_mut();
    let mut set = |name, value: String| {
        // Made of digits and encoded text alone.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, content_type(&start, size).to_owned());
    set(header::CONTENT_SECURITY_POLICY, FILE_POLICY.to_owned());
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::ETAG, tag);
    set(
        header::CONTENT_LENGTH,
        (range.end - range.start).to_string(),
    );
    if status == StatusCode::PARTIAL_CONTENT {
        set(
            header::CONTENT_RANGE,
            format!("bytes {}-{}/{size}", range.start, range.end - 1),
        );
    }
    if let Some(name) = saved_as {
        set(
            header::CONTENT_DISPOSITION,
            format!("attachment; filename*=UTF-8''{}", percent_encoded(name)),
        );
    }
    *response.body_mut() = Body::from_stream(browse::read(state.fleet.clone(), file, range));
    Ok(response)
}

/// Text is shown by browsers, anything else is saved; nothing is ever taken for a page or a script.
fn content_type(start: &[u8], size: u64) -> &'static str {
    let cut = (start.len() as u64) < size;
    let text = match std::str::from_utf8(start) {
        Ok(_) => true,
        // A character that the end of the look cuts off.
        Err(error) => cut && error.error_len().is_none(),
    };
    if text && !start.contains(&0) {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_is_shown_by_a_browser() {
        assert_eq!(
            content_type(b"<script>alert(1)</script>", 25),
            "text/plain; charset=utf-8"
        );
        assert_eq!(content_type(b"", 0), "text/plain; charset=utf-8");
        assert_eq!(content_type(b"a\0b", 3), "application/octet-stream");
        assert_eq!(content_type(b"caf\xc3", 4), "application/octet-stream");
        assert_eq!(content_type(b"caf\xc3", 5), "text/plain; charset=utf-8");
    }
}
