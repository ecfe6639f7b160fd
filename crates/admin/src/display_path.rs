//! Display paths as users write them on the command line.

use monofs_launch::exit::{Code, Failure};
use monofs_model::SourceUrl;

use crate::text::{clean, shell_word};

/// A display path as a user may write it: slashes around it do not matter. Errors: `Usage` for a
/// URL.
pub fn display_path(text: &str) -> Result<String, Failure> {
    match where_a_url_leads(text) {
        None => Ok(text.trim_matches('/').to_owned()),
        Some(path) => Err(Failure::new(
            Code::Usage,
            format!("'{}' is a URL; a path in the tree is wanted", clean(text)),
        )
        .hint(path)),
    }
}

/// Where the repository of a URL is, as a hint; `None` for what is no URL.
pub fn where_a_url_leads(text: &str) -> Option<String> {
    let source = SourceUrl::new(text);
    // A path in the tree may have a colon: only with a user it is `user@host:path`.
    let names_user = source.as_ref().is_ok_and(|source| source.user().is_some());
    if !names_user && !text.contains("://") {
        return None;
    }
    let lists = "`monofs-admin repos` lists the paths and their sources";
    let path = source.and_then(|source| source.display_path());
    Some(path.map_or_else(
        |_| lists.to_owned(),
        |path| {
            format!(
                "unless it was added with another --path, it is at {}; {lists}",
                shell_word(path.as_str())
            )
        },
    ))
}
