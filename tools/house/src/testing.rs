//! For the tests of this program: crates made of a few lines.
#![cfg(test)]

use crate::packages::{Package, Target, TargetPurpose};
use crate::sources::{self, ModuleTree};

/// The tree of a crate of these files, named relative to its sources; the first is its root.
pub(crate) fn tree_of(files: &[(&str, &str)]) -> ModuleTree {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it is below the directory"))
            .expect("make a directory");
        std::fs::write(path, text).expect("write a source file");
    }
    let package = Package {
        name: "monofs-tried".to_owned(),
        workspace: directory.path().to_owned(),
        targets: vec![Target {
            root: directory.path().join(files[0].0),
            purpose: TargetPurpose::Product,
        }],
        dependencies: Vec::new(),
    };
    let mut trees = sources::read(&[package]).expect("sources that parse");
    trees.remove(0)
}
