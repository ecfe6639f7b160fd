//! The packages of a checkout and what each depends on, as `cargo metadata` tells them.
//!
//! It reads manifests alone: nothing is resolved, downloaded or built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// A package of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// The root of the checkout: files are shown relative to it.
    pub(crate) workspace: PathBuf,
    /// Libraries, binaries, build scripts and tests.
    pub(crate) targets: Vec<Target>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A crate of a package: what cargo compiles at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its first file.
    pub(crate) root: PathBuf,
    pub(crate) purpose: TargetPurpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetPurpose {
    /// It is part of what users run, or makes it.
    Product,
    Test,
}

/// A line of a manifest's `[dependencies]` or `[build-dependencies]`, or of `[dev-dependencies]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) purpose: TargetPurpose,
}

/// The packages of the workspace at `directory`, by name.
pub(crate) fn read(directory: &Path) -> anyhow::Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .arg("--manifest-path")
        .arg(directory.join("Cargo.toml"))
        .output()
        .context("run cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata = serde_json::from_slice(&output.stdout).context("read cargo's metadata")?;
    parse(&metadata).context("cargo's metadata has another shape than this program knows")
}

/// `None` where something is missing that every cargo writes.
fn parse(metadata: &Value) -> Option<Vec<Package>> {
    let workspace = Path::new(metadata["workspace_root"].as_str()?);
    let packages = metadata["packages"].as_array()?.iter();
    let mut packages = packages
        .map(|package| parse_package(package, workspace))
        .collect::<Option<Vec<Package>>>()?;
    packages.sort_by(|one, other| one.name.cmp(&other.name));
    Some(packages)
}

fn parse_package(package: &Value, workspace: &Path) -> Option<Package> {
    let mut targets = Vec::new();
    for target in package["targets"].as_array()? {
        let purpose = match target["kind"][0].as_str()? {
            "test" | "bench" => TargetPurpose::Test,
            // It shows how to use a library, and is neither the product nor a proof.
            "example" => continue,
            _ => TargetPurpose::Product,
        };
        targets.push(Target {
            root: PathBuf::from(target["src_path"].as_str()?),
            purpose,
        });
    }
    let mut dependencies = Vec::new();
    for dependency in package["dependencies"].as_array()? {
        let purpose = match dependency["kind"].as_str() {
            Some("dev") => TargetPurpose::Test,
            _ => TargetPurpose::Product,
        };
        dependencies.push(Dependency {
            name: dependency["name"].as_str()?.to_owned(),
            purpose,
        });
    }
    Some(Package {
        name: package["name"].as_str()?.to_owned(),
        workspace: workspace.to_owned(),
        targets,
        dependencies,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_of_tests_are_told_from_those_of_the_product() {
        let metadata = serde_json::json!({
            "workspace_root": "/checkout",
            "packages": [{
                "name": "monofs-node",
                "targets": [
                    {"kind": ["lib"], "src_path": "/checkout/node/src/lib.rs"},
                    {"kind": ["test"], "src_path": "/checkout/node/tests/it/main.rs"},
                    {"kind": ["example"], "src_path": "/checkout/node/examples/seed.rs"},
                ],
                "dependencies": [
                    {"name": "tokio", "kind": null},
                    {"name": "protox", "kind": "build"},
                    {"name": "tempfile", "kind": "dev"},
                ],
            }],
        });
        let packages = parse(&metadata).expect("a document of cargo's shape");
        let purposes = |package: &Package| {
            let dependencies = package.dependencies.iter();
            dependencies
                .map(|dependency| (dependency.name.clone(), dependency.purpose))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            purposes(&packages[0]),
            [
                ("tokio".to_owned(), TargetPurpose::Product),
                ("protox".to_owned(), TargetPurpose::Product),
                ("tempfile".to_owned(), TargetPurpose::Test),
            ]
        );
        let targets: Vec<TargetPurpose> = packages[0].targets.iter().map(|t| t.purpose).collect();
        assert_eq!(targets, [TargetPurpose::Product, TargetPurpose::Test]);
    }

    #[test]
    fn a_document_of_another_shape_is_refused() {
        assert_eq!(parse(&serde_json::json!({"packages": []})), None);
    }
}
