//! What a piece of code names, and where that is declared.
//!
//! Names are followed as the compiler follows them, through `use`, globs and re-exports, to the
//! module that declares the item: `use crate::catalog::Retained` leads to the file of `Retained`
//! even where `catalog.rs` only re-exports it. Paths inside macros count, too.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use crate::sources::{Module, ModuleIndex, ModuleTree, ROOT};

/// Re-exports of re-exports are followed this far; a circle of them ends there.
const FOLLOWED_MAX: u8 = 16;

/// One name that a `use` brings into its module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// The path as it is written.
    pub(crate) path: Vec<String>,
    pub(crate) form: ImportForm,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImportForm {
    /// The path's item, by this name.
    Named(String),
    /// Everything in the path's module.
    Glob,
}

/// Where a path leads inside its crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Module(ModuleIndex),
    /// An item that this module declares.
    ItemOf(ModuleIndex),
}

impl ModuleTree {
    /// The modules that declare what `from` names, `from` itself aside.
    pub(crate) fn modules_named_by(&self, from: ModuleIndex) -> BTreeSet<ModuleIndex> {
        let module = &self.modules[from];
        let mut named = BTreeSet::new();
        for import in &module.imports {
            match (self.follow(from, &import.path, 0), &import.form) {
                (Some(Destination::ItemOf(owner)), _)
                | (Some(Destination::Module(owner)), ImportForm::Glob) => {
                    named.insert(owner);
                }
                // The name of a module alone needs nothing of it; the paths through it count.
                (Some(Destination::Module(_)), ImportForm::Named(_)) | (None, _) => {}
            }
        }
        for path in &module.paths {
            if let Some(Destination::ItemOf(owner)) = self.follow(from, path, 0) {
                named.insert(owner);
            }
        }
        named.remove(&from);
        named
    }

    /// Where `path`, as written in `from`, leads; nothing when that is another crate.
    fn follow(&self, from: ModuleIndex, path: &[String], followed: u8) -> Option<Destination> {
        if followed > FOLLOWED_MAX {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Destination::Module(ROOT),
            "self" => Destination::Module(from),
            "super" => Destination::Module(self.modules[from].parent?),
            name => self.look_up(from, name, followed)?,
        };
        for name in rest {
            let Destination::Module(module) = at else {
                // What follows an item is one of its own: a variant, a method.
                return Some(at);
            };
            at = match name.as_str() {
                "self" => at,
                "super" => Destination::Module(self.modules[module].parent?),
                // A name that no `mod`, item or `use` gives comes from a macro of that module.
                name => self
                    .look_up(module, name, followed)
                    .unwrap_or(Destination::ItemOf(module)),
            };
        }
        Some(at)
    }

    /// What `name` means inside a module.
    fn look_up(&self, at: ModuleIndex, name: &str, followed: u8) -> Option<Destination> {
        let module = &self.modules[at];
        if let Some(child) = module.children.get(name) {
            return Some(Destination::Module(*child));
        }
        if module.items.contains(name) {
            return Some(Destination::ItemOf(at));
        }
        self.look_up_import(at, module, name, followed)
    }

    fn look_up_import(
        &self,
        at: ModuleIndex,
        module: &Module,
        name: &str,
        followed: u8,
    ) -> Option<Destination> {
        module.imports.iter().find_map(|import| {
            match &import.form {
                // `use bytes::Bytes` and the like: the path's first word is no name of its own.
                ImportForm::Named(alias) if alias == name && import.path[0] != name => {
                    self.follow(at, &import.path, followed + 1)
                }
                ImportForm::Named(_) => None,
                ImportForm::Glob => match self.follow(at, &import.path, followed + 1)? {
                    Destination::Module(inner) if inner != at && followed < FOLLOWED_MAX => {
                        self.look_up(inner, name, followed + 1)
                    }
                    _ => None,
                },
            }
        })
    }
}

/// Gathers what an item imports and names.
#[derive(Debug, Default)]
pub(crate) struct PathCollector {
    pub(crate) imports: Vec<Import>,
    pub(crate) paths: BTreeSet<Vec<String>>,
}

impl PathCollector {
    pub(crate) fn collect(&mut self, item: &syn::Item) {
        self.visit_item(item);
    }

    fn add_use(&mut self, tree: &syn::UseTree, before: &[String]) {
        // `before` is what stands left of this part; `self` in a group is that path itself.
        let mut path = before.to_vec();
        match tree {
            syn::UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                self.add_use(&tree.tree, &path);
            }
            syn::UseTree::Group(tree) => {
                for inner in &tree.items {
                    self.add_use(inner, before);
                }
            }
            syn::UseTree::Name(tree) => {
                let name = tree.ident.to_string();
                if name != "self" {
                    path.push(name);
                }
                let alias = path.last().cloned().unwrap_or_default();
                self.add_import(path, ImportForm::Named(alias));
            }
            syn::UseTree::Rename(tree) => {
                if tree.ident != "self" {
                    path.push(tree.ident.to_string());
                }
                self.add_import(path, ImportForm::Named(tree.rename.to_string()));
            }
            syn::UseTree::Glob(_) => self.add_import(path, ImportForm::Glob),
        }
    }

    fn add_import(&mut self, path: Vec<String>, form: ImportForm) {
        if !path.is_empty() {
            self.imports.push(Import { path, form });
        }
    }

    /// Paths in what a macro is given, which is not parsed: words with `::` between them.
    fn add_tokens(&mut self, tokens: TokenStream) {
        // A word after two colons goes on with the path; any other ends it and begins the next.
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(word) if colons == 2 => {
                    path.push(word.to_string());
                    colons = 0;
                }
                TokenTree::Ident(word) => {
                    self.add_path(std::mem::replace(&mut path, vec![word.to_string()]));
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    self.add_path(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add_path(path);
    }

    fn add_path(&mut self, path: Vec<String>) {
        if path.len() > 1 {
            self.paths.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for PathCollector {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words = path.segments.iter();
        self.add_path(words.map(|word| word.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_tokens(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::tree_of;

    /// Files that the first module of `file` names.
    fn named(files: &[(&str, &str)], file: &str) -> Vec<String> {
        let tree = tree_of(files);
        let path_of = |index: usize| tree.files[tree.modules[index].file].path.clone();
        let from = (0..tree.modules.len())
            .find(|index| path_of(*index) == std::path::Path::new(file))
            .expect("the file is part of the crate");
        let named = tree.modules_named_by(from).into_iter();
        named
            .map(|module| path_of(module).display().to_string())
            .collect()
    }

    const CATALOG: (&str, &str) = ("catalog.rs", "mod retained; pub use retained::Retained;");
    const RETAINED: (&str, &str) = ("catalog/retained.rs", "pub struct Retained;");

    #[test]
    fn a_reexport_leads_to_the_file_that_declares() {
        let user = ("user.rs", "use crate::catalog::Retained;");
        let root = ("lib.rs", "mod catalog; mod user;");
        let files = [root, CATALOG, RETAINED, user];
        assert_eq!(named(&files, "user.rs"), ["catalog/retained.rs"]);
    }

    #[test]
    fn a_module_by_name_needs_what_is_named_through_it() {
        let user = (
            "user.rs",
            "use crate::catalog; fn f(_: catalog::Retained) {}",
        );
        let root = ("lib.rs", "mod catalog; mod user;");
        let files = [root, CATALOG, RETAINED, user];
        assert_eq!(named(&files, "user.rs"), ["catalog/retained.rs"]);
    }

    #[test]
    fn a_parent_that_only_lists_its_children_needs_none() {
        let files = [
            ("lib.rs", "mod one; pub struct Context;"),
            ("one.rs", "use super::Context;"),
        ];
        assert_eq!(named(&files, "lib.rs"), Vec::<String>::new());
        assert_eq!(named(&files, "one.rs"), ["lib.rs"]);
    }

    #[test]
    fn paths_in_macros_and_in_bodies_count() {
        let files = [
            ("lib.rs", "mod one; mod two; mod three;"),
            (
                "one.rs",
                "fn f() { println!(\"{}\", crate::two::size()); crate::three::go(); }",
            ),
            ("two.rs", "pub fn size() -> u8 { 2 }"),
            ("three.rs", "pub fn go() {}"),
        ];
        assert_eq!(named(&files, "one.rs"), ["two.rs", "three.rs"]);
    }

    #[test]
    fn a_glob_needs_its_module_and_leads_on() {
        let files = [
            ("lib.rs", "mod one; mod two; mod three;"),
            ("one.rs", "use crate::two::*;"),
            ("two.rs", "pub use crate::three::Deep;"),
            ("three.rs", "pub struct Deep;"),
        ];
        assert_eq!(named(&files, "one.rs"), ["two.rs"]);
        assert_eq!(named(&files, "two.rs"), ["three.rs"]);
    }

    #[test]
    fn other_crates_lead_nowhere() {
        let files = [(
            "lib.rs",
            "use bytes::bytes; use serde::Serialize; fn f() { bytes::g() }",
        )];
        assert_eq!(named(&files, "lib.rs"), Vec::<String>::new());
    }
}
