//! Tells the binaries which commit they were built from: `MONOFS_COMMIT` when set, else what git
//! says, else nothing.
//!
//! Only release builds follow the repository's HEAD: in debug builds every commit would relink
//! every binary.

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn main() {
    println!("cargo::rerun-if-env-changed=MONOFS_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");

    // A build outside a checkout is told its commit; any other asks git.
    let given = std::env::var("MONOFS_COMMIT")
        .ok()
        .filter(|text| !text.trim().is_empty());
    let commit = given
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=MONOFS_BUILD_COMMIT={}", commit.trim());

    // The date is the commit's, not the build's, so that equal sources give equal binaries.
    let date = git(&["show", "--no-patch", "--format=%cs", "HEAD"]);
    println!(
        "cargo::rustc-env=MONOFS_BUILD_DATE={}",
        date.unwrap_or_default()
    );
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        for name in ["HEAD", "logs/HEAD"] {
            if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", name]) {
                println!("cargo::rerun-if-changed={path}");
            }
        }
    }
}
