//! The walls: which crate may depend on which, and which crate may name which library or module.
//!
//! A crate of this workspace exists to forbid a dependency; this table is where that is said. A
//! new crate needs a row here, in the commit that makes it. Tests (`[dev-dependencies]`) may name
//! anything: they stand outside the house.

use crate::packages::{Dependency, Package, TargetPurpose};
use crate::sources::ModuleTree;

mod table;

/// What one crate of the workspace may depend on.
#[derive(Debug, Clone, Copy)]
struct CrateWall {
    package: &'static str,
    /// Crates of the workspace.
    may_use: &'static [&'static str],
    libraries: AllowedLibraries,
}

/// Which crates of others a crate may depend on.
#[derive(Debug, Clone, Copy)]
enum AllowedLibraries {
    /// All that no [`NameWall`] keeps for others.
    Any,
    AllBut(&'static [&'static str]),
    Only(&'static [&'static str]),
}

/// A library, or a module of a crate, that only a few crates may name.
#[derive(Debug, Clone, Copy)]
struct NameWall {
    name: &'static str,
    users: &'static [&'static str],
}

impl NameWall {
    fn allows(&self, package: &str) -> bool {
        self.users.contains(&package)
    }

    fn fault(&self, package: &str) -> String {
        format!(
            "{package} depends on {}; only {} may",
            self.name,
            self.users.join(", ")
        )
    }
}

/// A sentence for each dependency that a manifest names and a wall forbids.
pub(crate) fn dependency_faults(packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        // A crate of this workspace without a row could depend on anything.
        let Some(wall) = table::CRATES
            .iter()
            .find(|wall| wall.package == package.name)
        else {
            faults.push(format!(
                "{} has no wall; say in tools/house/src/walls/table.rs what it may depend on",
                package.name
            ));
            continue;
        };
        // Its own row says what it may use; the library's row says whose it is.
        for dependency in product_dependencies(package) {
            let ours = packages.iter().any(|one| one.name == dependency.name);
            if !wall.allows(dependency, ours) {
                faults.push(format!(
                    "{} may not depend on {}",
                    package.name, dependency.name
                ));
            }
            let kept = table::LIBRARIES
                .iter()
                .filter(|kept| kept.name == dependency.name);
            let broken = kept.filter(|kept| !kept.allows(&package.name));
            faults.extend(broken.map(|kept| kept.fault(&package.name)));
        }
    }
    faults
}

fn product_dependencies(package: &Package) -> impl Iterator<Item = &Dependency> {
    let dependencies = package.dependencies.iter();
    dependencies.filter(|dependency| dependency.purpose == TargetPurpose::Product)
}

impl CrateWall {
    fn allows(&self, dependency: &Dependency, ours: bool) -> bool {
        let name = dependency.name.as_str();
        if ours {
            return self.may_use.contains(&name);
        }
        match self.libraries {
            AllowedLibraries::Any => true,
            AllowedLibraries::AllBut(forbidden) => !forbidden.contains(&name),
            AllowedLibraries::Only(allowed) => allowed.contains(&name),
        }
    }
}

/// A sentence for each crate that names a module of another crate which a wall keeps from it.
pub(crate) fn path_faults(trees: &[ModuleTree]) -> Vec<String> {
    let mut faults = Vec::new();
    for tree in trees {
        for wall in table::MODULES {
            if names(tree, wall.name) && !wall.allows(&tree.package) {
                faults.push(wall.fault(&tree.package));
            }
        }
    }
    faults
}

/// Whether the code of a crate names `module`, like `monofs_store::state`.
fn names(tree: &ModuleTree, module: &str) -> bool {
    let words: Vec<&str> = module.split("::").collect();
    tree.modules.iter().any(|module| {
        let imported = module.imports.iter().map(|import| &import.path);
        module
            .paths
            .iter()
            .chain(imported)
            .any(|path| begins_with(path, &words))
    })
}

fn begins_with(path: &[String], words: &[&str]) -> bool {
    path.len() >= words.len() && path.iter().zip(words).all(|(word, wanted)| word == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree_of;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependency = |name: &&str| Dependency {
            name: (*name).to_owned(),
            purpose: TargetPurpose::Product,
        };
        Package {
            name: name.to_owned(),
            workspace: "/".into(),
            targets: Vec::new(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn a_library_belongs_to_its_owner() {
        assert!(dependency_faults(&[package("monofs-store", &["heed"])]).is_empty());
        let faults = dependency_faults(&[package("monofs-node", &["heed"])]);
        assert_eq!(
            faults,
            ["monofs-node depends on heed; only monofs-store may"]
        );
    }

    #[test]
    fn roles_never_depend_on_each_other() {
        let roles = [
            "monofs-router",
            "monofs-node",
            "monofs-fetcher",
            "monofs-client",
        ];
        for role in roles {
            for other in roles.into_iter().filter(|other| *other != role) {
                let packages = [package(role, &[other]), package(other, &[])];
                assert_eq!(dependency_faults(&packages).len(), 1, "{role} -> {other}");
            }
        }
    }

    #[test]
    fn tests_stand_outside_the_walls() {
        let mut tested = package("monofs-node", &["heed"]);
        tested.dependencies[0].purpose = TargetPurpose::Test;
        assert!(dependency_faults(&[tested]).is_empty());
    }

    #[test]
    fn a_crate_without_a_row_is_a_fault() {
        let faults = dependency_faults(&[package("monofs-new", &[])]);
        assert!(faults[0].contains("monofs-new has no wall"), "{faults:?}");
    }

    #[test]
    fn a_module_of_another_crate_is_found_however_it_is_named() {
        for text in [
            "use monofs_store::{frame, state::Change};",
            "fn f() { monofs_store::state::open() }",
        ] {
            assert!(
                names(&tree_of(&[("lib.rs", text)]), "monofs_store::state"),
                "{text}"
            );
        }
        let frame = tree_of(&[("lib.rs", "use monofs_store::frame;")]);
        assert!(!names(&frame, "monofs_store::state"));
    }
}
