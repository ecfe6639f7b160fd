//! Import circles: files of a crate that all need each other.
//!
//! An edge leads from a file to one that declares something it names. A parent that only lists a
//! child with `mod` does not need it. Files in one circle are read together or not at all, so a
//! circle of more than [`FILES_MAX`] files is a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::sources::{FileIndex, ModuleTree};

/// The largest circle that needs no entry in [`EXCEPTIONS`].
const FILES_MAX: usize = 3;

/// A crate that may have a larger circle, how large, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CircleException {
    package: &'static str,
    files_max: usize,
    reason: &'static str,
}

/// Crates that may have larger circles. None has one; a new entry needs a reason that a reader of
/// both files would accept.
pub(crate) const EXCEPTIONS: &[CircleException] = &[];

/// Files that all need each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImportCircle {
    pub(crate) package: String,
    /// Each file with those of the circle that it names something of.
    imports: BTreeMap<PathBuf, Vec<PathBuf>>,
}

impl ImportCircle {
    /// How many files it has.
    pub(crate) fn len(&self) -> usize {
        self.imports.len()
    }
}

/// All circles of two files and more, the largest first.
pub(crate) fn find(trees: &[ModuleTree]) -> Vec<ImportCircle> {
    let mut circles: Vec<ImportCircle> = trees.iter().flat_map(circles_of).collect();
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

fn circles_of(tree: &ModuleTree) -> Vec<ImportCircle> {
    let edges = file_edges(tree);
    let components = strongly_connected(&edges).into_iter();
    let circles = components.filter(|files| files.len() > 1).map(|files| {
        let mut imports = BTreeMap::new();
        for &file in &files {
            let targets = edges[file].intersection(&files);
            let targets = targets.map(|target| tree.files[*target].path.clone());
            imports.insert(tree.files[file].path.clone(), targets.collect());
        }
        ImportCircle {
            package: tree.package.clone(),
            imports,
        }
    });
    circles.collect()
}

/// For each file those that declare what it names.
fn file_edges(tree: &ModuleTree) -> Vec<BTreeSet<FileIndex>> {
    let mut edges = vec![BTreeSet::new(); tree.files.len()];
    for (index, module) in tree.modules.iter().enumerate() {
        for named in tree.modules_named_by(index) {
            let target = tree.modules[named].file;
            if target != module.file {
                edges[module.file].insert(target);
            }
        }
    }
    edges
}

/// The strongly connected components of a graph, after Tarjan (1972).
fn strongly_connected(edges: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let mut search = ComponentSearch {
        edges,
        found_at: vec![None; edges.len()],
        lowest: vec![0; edges.len()],
        open: Vec::new(),
        found: 0,
        components: Vec::new(),
    };
    for node in 0..edges.len() {
        if search.found_at[node].is_none() {
            search.visit(node);
        }
    }
    search.components
}

struct ComponentSearch<'a> {
    edges: &'a [BTreeSet<usize>],
    /// When a node was met first.
    found_at: Vec<Option<usize>>,
    /// The earliest open node that each one reaches.
    lowest: Vec<usize>,
    /// Nodes whose component is not complete yet.
    open: Vec<usize>,
    found: usize,
    components: Vec<BTreeSet<usize>>,
}

impl ComponentSearch<'_> {
    fn visit(&mut self, node: usize) {
        let here = self.found;
        self.found_at[node] = Some(here);
        self.lowest[node] = here;
        self.found += 1;
        self.open.push(node);

        // A node reaches what the nodes reach that it leads to, as long as these are open.
        for &next in &self.edges[node] {
            match self.found_at[next] {
                None => {
                    self.visit(next);
                    self.lowest[node] = self.lowest[node].min(self.lowest[next]);
                }
                Some(then) if self.open.contains(&next) => {
                    self.lowest[node] = self.lowest[node].min(then);
                }
                Some(_) => {}
            }
        }

        // It reaches nothing earlier: all that is open since then is its component.
        if self.lowest[node] == here {
            let place = self.open.iter().position(|open| *open == node);
            let component = self
                .open
                .split_off(place.expect("a node stays open until here"));
            self.components.push(component.into_iter().collect());
        }
    }
}

/// A sentence for each circle that is too large, and for each exception that is larger than needed.
pub(crate) fn faults(circles: &[ImportCircle], exceptions: &[CircleException]) -> Vec<String> {
    let mut faults = Vec::new();
    // No circle is larger than its crate may have.
    for circle in circles {
        let exception = exceptions.iter().find(|one| one.package == circle.package);
        let files_max = exception.map_or(FILES_MAX, |one| one.files_max);
        if circle.len() > files_max {
            faults.push(describe(circle, files_max));
        }
    }
    // No crate may have larger circles than it has.
    for exception in exceptions {
        let own = circles
            .iter()
            .filter(|one| one.package == exception.package);
        let largest = own.map(ImportCircle::len).max().unwrap_or(0);
        if largest < exception.files_max {
            faults.push(format!(
                "{}: its largest import circle has {largest} files, fewer than the exception \
                 allows ({}: {}); lower or remove it in tools/house/src/circles.rs",
                exception.package, exception.files_max, exception.reason
            ));
        }
    }
    faults
}

fn describe(circle: &ImportCircle, files_max: usize) -> String {
    let mut text = format!(
        "{}: {} files in one import circle, {files_max} are allowed; move what they share below \
         them, or pass the part that is needed",
        circle.package,
        circle.len()
    );
    for (file, imports) in &circle.imports {
        let imports: Vec<String> = imports.iter().map(|to| to.display().to_string()).collect();
        text += &format!("\n  {} names {}", file.display(), imports.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree_of;

    /// A crate in which the first of `count` files names the second, and so on, the last the first.
    fn ring(count: usize) -> ModuleTree {
        let name = |index: usize| format!("file{index}");
        let root: String = (0..count).map(|i| format!("mod {};", name(i))).collect();
        let mut files = vec![("lib.rs".to_owned(), root)];
        for index in 0..count {
            let next = name((index + 1) % count);
            let text = format!("pub struct S; use crate::{next}::S as Next;");
            files.push((format!("{}.rs", name(index)), text));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (&**n, &**t)).collect();
        tree_of(&files)
    }

    fn exception(files_max: usize) -> CircleException {
        CircleException {
            package: "monofs-tried",
            files_max,
            reason: "tried",
        }
    }

    #[test]
    fn a_circle_of_three_files_is_allowed_and_one_of_four_is_a_fault() {
        assert!(faults(&find(&[ring(3)]), &[]).is_empty());
        let faults = faults(&find(&[ring(4)]), &[]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("file3.rs names file0.rs"), "{faults:?}");
    }

    #[test]
    fn files_that_only_lead_to_a_circle_are_not_in_it() {
        let tree = tree_of(&[
            ("lib.rs", "mod one; mod two; mod three;"),
            ("one.rs", "pub struct S; use crate::two::T;"),
            (
                "two.rs",
                "pub struct T; use crate::one::S; use crate::three::U;",
            ),
            ("three.rs", "pub struct U;"),
        ]);
        let circles = find(&[tree]);
        assert_eq!(circles.len(), 1);
        assert_eq!(circles[0].len(), 2);
    }

    #[test]
    fn a_child_that_names_what_its_parent_declares_and_uses_is_a_circle() {
        let tree = tree_of(&[
            (
                "lib.rs",
                "mod worker; pub struct Context; fn f() { worker::run() }",
            ),
            ("worker.rs", "use super::Context; pub fn run() {}"),
        ]);
        assert_eq!(find(&[tree])[0].len(), 2);
    }

    #[test]
    fn an_exception_allows_its_size_and_must_be_lowered_when_it_can() {
        let circles = find(&[ring(5)]);
        assert!(faults(&circles, &[exception(5)]).is_empty());
        assert_eq!(faults(&circles, &[exception(4)]).len(), 1);
        let faults = faults(&circles, &[exception(6)]);
        assert!(faults[0].contains("lower or remove"), "{faults:?}");
    }
}
