//! What a user may have meant: the known name that is nearest to one that is not known.

/// One wrong letter is forgiven in a name of this length, two in one twice as long, and so on.
const LETTERS_PER_MISTAKE: usize = 5;
/// Most mistakes that are forgiven.
const MISTAKES_MAX: usize = 4;
/// Longest name that is compared letter by letter, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The known name nearest to `wanted`, if any is near.
pub fn name<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (wanted.chars().count() / LETTERS_PER_MISTAKE).clamp(1, MISTAKES_MAX);
    let near = known
        .into_iter()
        .map(|name| (distance(wanted, name), name))
        .filter(|(far, _)| *far <= most);
    near.min().map(|(_, name)| name)
}

/// The path of a repository that a user may have meant by `wanted`: with `.git` at its end, with
/// the mount point before it, a place inside it, only its last names, or misspelt.
pub fn path<'a>(wanted: &str, known: &[&'a str]) -> Option<&'a str> {
    let wanted = wanted.strip_suffix(".git").unwrap_or(wanted);
    // From what is most likely meant to what is least.
    let fits: [fn(&str, &str) -> bool; 5] = [
        |path, wanted| path == wanted,
        |path, wanted| is_below(path, wanted),
        |path, wanted| ends_with_names(wanted, path),
        |path, wanted| ends_with_names(path, wanted),
        |path, wanted| path.eq_ignore_ascii_case(wanted),
    ];
    let paths = || known.iter().copied();
    fits.iter()
        .find_map(|fits| paths().find(|path| fits(path, wanted)))
        .or_else(|| name(wanted, paths()))
}

fn is_below(outer: &str, inner: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn ends_with_names(whole: &str, end: &str) -> bool {
    whole
        .strip_suffix(end)
        .is_some_and(|rest| rest.ends_with('/'))
}

/// How many letters must be added, removed, changed or swapped with their neighbour to get from one
/// to the other. Source: optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > NAME_BYTES_MAX || b.len() > NAME_BYTES_MAX {
        return usize::MAX;
    }
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    // One row of the table of distances after the other; three are needed at a time.
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let change = last[j] + usize::from(from != to);
            let mut best = change.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                let swap: &Vec<usize> = &before;
                best = best.min(swap[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_near_that_differ_in_few_letters() {
        assert_eq!(name("nod10", ["node1", "node10", "other"]), Some("node10"));
        assert_eq!(name("ndoe1", ["node1", "node2"]), Some("node1"));
        assert_eq!(name("nodes-of-another-cluster", ["node1"]), None);
        assert_eq!(
            (
                distance("", "abc"),
                distance("abc", "abc"),
                distance("kitten", "sitting")
            ),
            (3, 0, 3)
        );
    }

    #[test]
    fn paths_are_found_in_what_people_write_instead() {
        let known = ["github.com/org/repo", "gitlab.com/a/b/c"];
        for wanted in [
            "github.com/org/repo.git",
            "github.com/org/repo/src/main.rs",
            "mnt/monofs/github.com/org/repo",
            "org/repo",
            "GitHub.com/Org/repo",
            "github.com/org/rpeo",
        ] {
            assert_eq!(
                path(wanted, &known),
                Some("github.com/org/repo"),
                "{wanted}"
            );
        }
        assert_eq!(path("somewhere/else", &known), None);
    }
}
