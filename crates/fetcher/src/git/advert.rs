//! Which commit a ref name means, given what a remote advertises.
//!
//! Order: the empty name is HEAD; a full commit id is itself; then a branch, a tag and a full ref
//! name; then a short commit id that exactly one advertised object begins with.

use monofs_model::{Error, Oid, RefName, Result, SourceUrl};

use crate::source::ResolvedRef;

/// Most branches that a message names.
const BRANCHES_TOLD_MAX: usize = 5;

/// One ref of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedRef {
    pub name: String,
    /// What it names; of an annotated tag, what the tag names in the end.
    pub object: Oid,
    /// Of a symbolic ref, the ref it stands for.
    pub target: Option<String>,
}

/// What the advertisement says about a ref name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefChoice {
    Found(ResolvedRef),
    /// It may be a short commit id further back in history.
    PerhapsCommit,
}

/// Prefixes that make a remote list what [`choose`] needs and little else; empty = everything.
pub fn prefixes(ref_name: &RefName) -> Vec<String> {
    let name = ref_name.as_str();
    if name.is_empty() {
        return vec!["HEAD".to_owned()];
    }
    if ref_name.may_be_commit() {
        return Vec::new();
    }
    vec![
        format!("refs/heads/{name}"),
        format!("refs/tags/{name}"),
        format!("refs/{name}"),
        name.to_owned(),
    ]
}

/// Prefixes of what a message needs when [`choose`] has found nothing.
pub fn prefixes_for_advice() -> [String; 2] {
    ["HEAD".to_owned(), "refs/heads/".to_owned()]
}

/// The commit itself when the name is a full commit id: nothing has to be asked.
pub fn full_commit_id(ref_name: &RefName) -> Option<ResolvedRef> {
    let commit = ref_name.as_str().parse().ok()?;
    Some(ResolvedRef {
        commit,
        full_ref: String::new(),
    })
}

/// What `ref_name` means among `refs`. Errors: `NotFound` and, for an ambiguous short id,
/// `Invalid`.
pub fn choose(source: &SourceUrl, ref_name: &RefName, refs: &[AdvertisedRef]) -> Result<RefChoice> {
    let name = ref_name.as_str();
    let named = |full: &str| refs.iter().find(|r| r.name == full);
    let found = |r: &AdvertisedRef| {
        let full_ref = r.target.clone().unwrap_or_else(|| r.name.clone());
        Ok(RefChoice::Found(ResolvedRef {
            commit: r.object,
            full_ref,
        }))
    };
    // No name stands for the remote's HEAD.
    if name.is_empty() {
        return match named("HEAD") {
            Some(head) => found(head),
            None if refs.is_empty() => Err(Error::not_found(format!(
                "{source}: the repository is empty, or its HEAD names a branch that does not \
                 exist; push a commit, or name a ref (--ref)"
            ))),
            None => Err(Error::not_found(format!(
                "{source}: the remote's HEAD names no branch that exists; {}",
                branches(refs)
            ))),
        };
    }
    // Then by name, in Git's order.
    let full_names = [
        format!("refs/heads/{name}"),
        format!("refs/tags/{name}"),
        name.to_owned(),
        format!("refs/{name}"),
    ];
    if let Some(by_name) = full_names.iter().find_map(|full| named(full)) {
        return found(by_name);
    }
    // Last, a short commit id that only one advertised object begins with.
    if ref_name.may_be_commit() {
        let short = name.to_ascii_lowercase();
        let mut matches: Vec<&AdvertisedRef> = refs
            .iter()
            .filter(|r| r.object.to_string().starts_with(&short))
            .collect();
        matches.sort_by_key(|r| r.object);
        matches.dedup_by_key(|r| r.object);
        return match matches[..] {
            [] => Ok(RefChoice::PerhapsCommit),
            [one] => Ok(RefChoice::Found(ResolvedRef {
                commit: one.object,
                full_ref: String::new(),
            })),
            _ => Err(Error::invalid(format!(
                "{source}: the short commit id '{name}' is ambiguous; give more digits"
            ))),
        };
    }
    // A default branch that was renamed is the usual reason.
    let now = named("HEAD").and_then(|head| head.target.as_deref());
    let advice = match now.and_then(|target| target.strip_prefix("refs/heads/")) {
        Some(default) => format!("the default branch is '{default}': give that as the ref (--ref)"),
        None => branches(refs),
    };
    Err(Error::not_found(format!(
        "{source}: there is no branch or tag '{name}' (any more); {advice}"
    )))
}

/// What to give instead, where the remote's HEAD is of no help.
fn branches(refs: &[AdvertisedRef]) -> String {
    let mut names = refs
        .iter()
        .filter_map(|r| r.name.strip_prefix("refs/heads/"));
    let told: Vec<&str> = names.by_ref().take(BRANCHES_TOLD_MAX).collect();
    match (told.is_empty(), names.count()) {
        (true, _) => "check --ref".to_owned(),
        (false, 0) => format!("give a branch with --ref: {}", told.join(", ")),
        (false, more) => format!(
            "give a branch with --ref: {} and {more} more",
            told.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use monofs_model::ErrorKind;

    use super::*;

    fn refs(list: &[(&str, u8, Option<&str>)]) -> Vec<AdvertisedRef> {
        let oid = |byte: u8| Oid::from_bytes(&[byte; 20]).unwrap();
        let one = |(name, byte, target): &(&str, u8, Option<&str>)| AdvertisedRef {
            name: (*name).to_owned(),
            object: oid(*byte),
            target: target.map(str::to_owned),
        };
        list.iter().map(one).collect()
    }

    fn pick(name: &str) -> Result<RefChoice> {
        let advertised = refs(&[
            ("HEAD", 1, Some("refs/heads/main")),
            ("refs/heads/main", 1, None),
            ("refs/heads/v1", 2, None),
            ("refs/tags/v1", 3, None),
            ("refs/pull/7/head", 4, None),
        ]);
        let source = SourceUrl::new("git://h/x").unwrap();
        choose(&source, &RefName::new(name).unwrap(), &advertised)
    }

    #[test]
    fn names_are_found_in_order() {
        let full = |name| match pick(name).unwrap() {
            RefChoice::Found(resolved) => resolved.full_ref,
            RefChoice::PerhapsCommit => "?".to_owned(),
        };
        assert_eq!(full(""), "refs/heads/main");
        assert_eq!(full("v1"), "refs/heads/v1");
        assert_eq!(full("tags/v1"), "refs/tags/v1");
        assert_eq!(full("refs/pull/7/head"), "refs/pull/7/head");
        assert_eq!(full("0404040"), "");
        assert_eq!(full("abcdef"), "?");
        assert_eq!(pick("nope").unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let source = SourceUrl::new("git://h/x").unwrap();
        let told = |name: &str, list: &[(&str, u8, Option<&str>)]| {
            let name = RefName::new(name).unwrap();
            choose(&source, &name, &refs(list)).unwrap_err().message
        };
        let error = pick("master").unwrap_err().message;
        assert!(error.contains("the default branch is 'main'"), "{error}");
        let heads = [("refs/heads/dev", 1, None), ("refs/heads/main", 2, None)];
        for name in ["", "master"] {
            let error = told(name, &heads);
            assert!(error.contains("--ref: dev, main"), "{error}");
        }
        let names: Vec<String> = (0..9).map(|n| format!("refs/heads/b{n}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), 1, None)).collect();
        assert!(told("master", &many).ends_with("b4 and 4 more"));
    }

    #[test]
    fn an_empty_repository_is_said_to_be_empty() {
        let source = SourceUrl::new("git://h/x").unwrap();
        let error = choose(&source, &RefName::default(), &[]).unwrap_err();
        assert!(
            error.kind == ErrorKind::NotFound && error.message.contains("empty"),
            "{error}"
        );
    }
}
