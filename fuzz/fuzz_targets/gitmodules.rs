//! `.gitmodules` of any repository.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monofs_model::limits::{SOURCE_BYTES_MAX, SUBMODULES_MAX};

fuzz_target!(|data: &[u8]| {
    let modules = monofs_fetcher::modules::parse(data);
    assert!(modules.len() <= SUBMODULES_MAX);
    assert!(
        modules
            .iter()
            .all(|module| module.url.len() <= SOURCE_BYTES_MAX)
    );
});
