//! Seeds that only an encoder can make.
//!
//! [`keep`] writes them into the corpus of a target as its run begins, before libFuzzer reads it.
//! Seeds that people can write are files in `fuzz/seeds/<target>/`.

use std::path::Path;

/// Adds a seed to the corpus of `target` unless it is there.
pub fn keep(target: &str, name: &str, bytes: &[u8]) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let file = corpus.join(format!("seed-{name}"));
    if !file.exists() && std::fs::create_dir_all(&corpus).is_ok() {
        // Without a corpus the target still runs, only slower to find its way.
        let _ = std::fs::write(file, bytes);
    }
}
