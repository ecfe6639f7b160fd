//! The source files of all packages, parsed, as trees of modules.
//!
//! A crate is read as the compiler reads it: from its first file along its `mod` items. What is
//! under `#[cfg(test)]`, and every file below a test target, is test code and is only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use syn::spanned::Spanned as _;

use crate::imports::{Import, PathCollector};
use crate::packages::{Package, Target, TargetPurpose};

/// A crate: its files, and its modules with the root first.
pub(crate) struct ModuleTree {
    /// The package's name.
    pub(crate) package: String,
    pub(crate) files: Vec<SourceFile>,
    pub(crate) modules: Vec<Module>,
}

/// Index into [`ModuleTree::files`].
pub(crate) type FileIndex = usize;
/// Index into [`ModuleTree::modules`].
pub(crate) type ModuleIndex = usize;

/// The root module of every tree.
pub(crate) const ROOT: ModuleIndex = 0;

pub(crate) struct SourceFile {
    /// Relative to the checkout.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
    /// Lines of test code, counted from one.
    test_lines: Vec<RangeInclusive<usize>>,
}

/// What one `mod` holds, without its test code.
#[derive(Default)]
pub(crate) struct Module {
    pub(crate) file: FileIndex,
    pub(crate) parent: Option<ModuleIndex>,
    pub(crate) children: BTreeMap<String, ModuleIndex>,
    /// Names of the types, functions, constants and macros that are declared here.
    pub(crate) items: BTreeSet<String>,
    /// What `use` brings in, re-exports too.
    pub(crate) imports: Vec<Import>,
    /// Every path of more than one word that stands in the code.
    pub(crate) paths: BTreeSet<Vec<String>>,
}

impl SourceFile {
    /// The lines that are not test code, with their numbers from one.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..)
            .zip(self.text.lines())
            .filter(|(number, _)| !self.is_test_line(*number))
    }

    pub(crate) fn test_line_count(&self) -> usize {
        self.text.lines().count() - self.code_lines().count()
    }

    fn is_test_line(&self, number: usize) -> bool {
        self.test_lines.iter().any(|lines| lines.contains(&number))
    }
}

/// Every crate of `packages`, parsed.
pub(crate) fn read(packages: &[Package]) -> anyhow::Result<Vec<ModuleTree>> {
    let mut trees = Vec::new();
    for package in packages {
        for target in &package.targets {
            trees.push(read_tree(package, target)?);
        }
    }
    Ok(trees)
}

fn read_tree(package: &Package, target: &Target) -> anyhow::Result<ModuleTree> {
    let mut reader = TreeReader {
        workspace: &package.workspace,
        tree: ModuleTree {
            package: package.name.clone(),
            files: Vec::new(),
            modules: Vec::new(),
        },
    };
    let below = target.root.parent().unwrap_or(Path::new(""));
    reader.read_file(&target.root, below, None, target.purpose)?;
    Ok(reader.tree)
}

struct TreeReader<'a> {
    workspace: &'a Path,
    tree: ModuleTree,
}

impl TreeReader<'_> {
    /// Reads the file of a module and those of the modules below it, which are in `below`.
    fn read_file(
        &mut self,
        path: &Path,
        below: &Path,
        parent: Option<ModuleIndex>,
        purpose: TargetPurpose,
    ) -> anyhow::Result<ModuleIndex> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut syntax =
            syn::parse_file(&text).with_context(|| format!("parse {}", path.display()))?;
        let items = std::mem::take(&mut syntax.items);
        let test_lines = match purpose {
            TargetPurpose::Test => vec![1..=usize::MAX],
            TargetPurpose::Product => Vec::new(),
        };
        let file = self.tree.files.len();
        self.tree.files.push(SourceFile {
            path: path.strip_prefix(self.workspace).unwrap_or(path).to_owned(),
            text,
            syntax,
            test_lines,
        });
        let module = self.add_module(file, parent);
        self.read_items(&items, module, below, purpose)?;
        self.tree.files[file].syntax.items = items;
        Ok(module)
    }

    fn add_module(&mut self, file: FileIndex, parent: Option<ModuleIndex>) -> ModuleIndex {
        self.tree.modules.push(Module {
            file,
            parent,
            ..Module::default()
        });
        self.tree.modules.len() - 1
    }

    fn read_items(
        &mut self,
        items: &[syn::Item],
        module: ModuleIndex,
        below: &Path,
        purpose: TargetPurpose,
    ) -> anyhow::Result<()> {
        for item in items {
            let mut purpose = purpose;
            if is_test_only(item) {
                purpose = TargetPurpose::Test;
                let lines = item.span().start().line..=item.span().end().line;
                let file = self.tree.modules[module].file;
                self.tree.files[file].test_lines.push(lines);
            }
            match item {
                syn::Item::Mod(declared) => {
                    self.read_module(declared, module, below, purpose)?;
                }
                _ if purpose == TargetPurpose::Test => {}
                _ => self.note_item(item, module),
            }
        }
        Ok(())
    }

    fn read_module(
        &mut self,
        declared: &syn::ItemMod,
        parent: ModuleIndex,
        below: &Path,
        purpose: TargetPurpose,
    ) -> anyhow::Result<()> {
        let name = declared.ident.to_string();
        let own = below.join(&name);
        // In braces it stands in the file of its parent, else beside or in the parent's directory.
        let child = match &declared.content {
            Some((_, items)) => {
                let file = self.tree.modules[parent].file;
                let child = self.add_module(file, Some(parent));
                self.read_items(items, child, &own, purpose)?;
                child
            }
            None => {
                let beside = below.join(format!("{name}.rs"));
                let path = if beside.exists() {
                    beside
                } else {
                    own.join("mod.rs")
                };
                self.read_file(&path, &own, Some(parent), purpose)?
            }
        };
        // Code cannot name a module that exists for tests alone.
        if purpose == TargetPurpose::Product {
            self.tree.modules[parent].children.insert(name, child);
        }
        Ok(())
    }

    fn note_item(&mut self, item: &syn::Item, module: ModuleIndex) {
        let module = &mut self.tree.modules[module];
        if let Some(name) = declared_name(item) {
            module.items.insert(name);
        }
        let mut collector = PathCollector::default();
        collector.collect(item);
        module.imports.extend(collector.imports);
        module.paths.extend(collector.paths);
    }
}

/// The name that an item gives to its module.
fn declared_name(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

/// Whether an item is compiled for tests alone.
pub(crate) fn is_test_only(item: &syn::Item) -> bool {
    attributes(item).iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else {
            return attribute.path().is_ident("test");
        };
        let condition = list.tokens.to_string();
        let mut words = condition.split(|letter: char| !letter.is_alphanumeric());
        list.path.is_ident("cfg")
            && words.clone().any(|word| word == "test")
            && !words.any(|word| word == "not")
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::tree_of;

    #[test]
    fn files_are_found_beside_their_parent_and_in_its_directory() {
        let tree = tree_of(&[
            ("lib.rs", "mod state; mod plan;"),
            ("state.rs", "mod leader;"),
            ("state/leader.rs", ""),
            ("plan/mod.rs", "mod steps;"),
            ("plan/steps.rs", ""),
        ]);
        let paths: Vec<_> = tree.files.iter().map(|file| file.path.clone()).collect();
        for path in ["lib.rs", "state.rs", "state/leader.rs", "plan/steps.rs"] {
            assert!(paths.contains(&path.into()), "{path} in {paths:?}");
        }
    }

    #[test]
    fn test_code_is_counted_apart_wherever_it_stands() {
        let tree = tree_of(&[
            (
                "lib.rs",
                "fn served() {}\n#[cfg(test)]\nmod tests;\n#[cfg(all(test, unix))]\nmod more {\n}\n",
            ),
            ("tests.rs", "use super::served;\nfn helper() {}\n"),
        ]);
        assert_eq!(tree.files[0].code_lines().count(), 1);
        assert_eq!(tree.files[0].test_line_count(), 5);
        assert_eq!(tree.files[1].code_lines().count(), 0);
        assert!(tree.modules[0].children.is_empty());
    }

    #[test]
    fn code_that_tests_do_not_see_is_no_test_code() {
        let tree = tree_of(&[("lib.rs", "#[cfg(not(test))]\nfn served() {}\n")]);
        assert_eq!(tree.files[0].test_line_count(), 0);
        assert!(tree.modules[0].items.contains("served"));
    }
}
