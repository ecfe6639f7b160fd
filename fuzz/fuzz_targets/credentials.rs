//! The fetcher's credentials file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monofs_fetcher::Credentials;
use monofs_model::SourceUrl;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Credentials::parse(text) {
        Ok(credentials) => {
            for url in [
                "https://host/x",
                "https://host:8443/x",
                "ssh://git@[::1]:22/x",
                "file:///x",
            ] {
                let host = credentials.of(&SourceUrl::new(url).expect("valid"));
                assert!(
                    !format!("{host:?}").contains("s3cret-value"),
                    "a secret shows itself"
                );
            }
            assert!(!format!("{credentials:?}").contains("Secret("));
        }
        Err(error) => {
            assert!(
                !error.message.contains('\n'),
                "an error has one line: {}",
                error.message
            );
        }
    }
});
