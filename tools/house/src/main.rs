//! `house`: the rules of the repository that no compiler knows, as a program.
//!
//! `house check [DIRECTORY]` fails when a wall between crates is broken or an import circle grows;
//! `make check` runs it. `house figures [DIRECTORY]` prints what the code looks like in numbers,
//! of any checkout, so that two commits can be compared.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;

use crate::circles::ImportCircle;

mod circles;
mod figures;
mod imports;
mod packages;
mod sources;
mod testing;
mod walls;

const USAGE: &str = "\
usage: house check [DIRECTORY]            walls between crates, import circles
       house figures [DIRECTORY]          figures of the code, as a table
       house figures --where [DIRECTORY]  and the place of each finding";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // The working directory is the checkout, unless another one is named.
    let done = match words.as_slice() {
        ["check"] => check(Path::new(".")),
        ["check", directory] => check(Path::new(directory)),
        ["figures"] => print_figures(Path::new("."), Places::Counted),
        ["figures", "--where"] => print_figures(Path::new("."), Places::Listed),
        ["figures", "--where", directory] => print_figures(Path::new(directory), Places::Listed),
        ["figures", directory] => print_figures(Path::new(directory), Places::Counted),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A broken rule and a checkout that cannot be read both end with one.
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether findings are only counted or also listed with file and line.
enum Places {
    Counted,
    Listed,
}

fn check(directory: &Path) -> anyhow::Result<()> {
    let packages = packages::read(directory)?;
    let trees = sources::read(&packages)?;
    let mut faults = walls::dependency_faults(&packages);
    faults.extend(walls::path_faults(&trees));

    let circles = circles::find(&trees);
    faults.extend(circles::faults(&circles, circles::EXCEPTIONS));

    for fault in &faults {
        eprintln!("{fault}\n");
    }
    if !faults.is_empty() {
        bail!("rules of the house that are broken: {}", faults.len());
    }
    println!(
        "house: the walls of {} crates hold; files in the largest import circle: {}",
        packages.len(),
        circles.iter().map(ImportCircle::len).max().unwrap_or(0)
    );
    Ok(())
}

fn print_figures(directory: &Path, places: Places) -> anyhow::Result<()> {
    let trees = sources::read(&packages::read(directory)?)?;
    let figures = figures::measure(&trees);
    if let Places::Listed = places {
        print!("{}", figures.places());
    }
    print!("{}", figures.table());
    Ok(())
}
