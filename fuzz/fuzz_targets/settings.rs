//! Settings: any settings file and any flag value must be taken or refused with a message, never a
//! panic.
#![no_main]

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};
use libfuzzer_sys::fuzz_target;
use monofs_launch::args::{self, Keyed, Listen, Peers};
use monofs_launch::layers;

/// Every kind of flag that the binaries have.
#[derive(Debug, Parser)]
struct FuzzedFlags {
    #[arg(long, default_value_t = 9090)]
    port: u16,
    #[arg(long, default_value = ":9000")]
    addr: Listen,
    #[arg(long, default_value = "2s", value_parser = args::duration)]
    interval: Duration,
    #[arg(long, default_value = "")]
    nodes: Peers,
    #[arg(long, default_value = "")]
    weights: Keyed<f64>,
    #[arg(long, value_delimiter = ',', value_parser = args::address)]
    fetcher: Vec<String>,
    #[arg(long, value_parser = args::gigabytes)]
    cache_gb: Option<u64>,
    #[arg(long)]
    debug: bool,
    #[arg(long)]
    path: Option<PathBuf>,
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<FuzzedVerb>,
}

#[derive(Debug, clap::Subcommand)]
enum FuzzedVerb {
    Up {
        #[arg(long, default_value_t = 1)]
        count: u32,
    },
}

thread_local! {
    /// The settings file, which every input is written to.
    static FILE: RefCell<tempfile::NamedTempFile> =
        RefCell::new(tempfile::NamedTempFile::new().expect("a temporary file"));
}

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (
            args::duration(text),
            args::gigabytes(text),
            args::address(text),
        );
        let _ = (
            text.parse::<Listen>(),
            text.parse::<Peers>(),
            text.parse::<Keyed<f64>>(),
        );
        if let Ok(listen) = text.parse::<Listen>() {
            assert_eq!(listen.to_string().parse::<Listen>().as_ref(), Ok(&listen));
        }
    }
    // As a settings file.
    FILE.with_borrow_mut(|file| {
        let mut out = file.as_file();
        out.set_len(0)
            .and_then(|()| out.rewind())
            .and_then(|()| out.write_all(data))
            .expect("the file can be written");
        settings(vec!["x".into(), "--config".into(), file.path().into()]);
    });
    // As words of a command line. No `--config`: it would name files of this machine.
    let words = data
        .split(|b| *b == b'\n')
        .filter(|word| !word.starts_with(b"--config"));
    settings(
        std::iter::once(b"x".as_slice())
            .chain(words)
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect(),
    );
});

fn settings(argv: Vec<OsString>) {
    if let Ok(matches) = layers::matches(FuzzedFlags::command(), argv) {
        let _ = FuzzedFlags::from_arg_matches(&matches);
    }
}
