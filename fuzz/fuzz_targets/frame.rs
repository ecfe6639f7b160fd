//! Frames: as nodes, clients and caches get them. Arbitrary bytes, and well-formed headers over
//! arbitrary payloads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monofs_model::limits::CHUNK_BYTES;
use monofs_store::frame;

fuzz_target!(init: seed(), |data: &[u8]| {
    check(data);
    // A header that announces what is there, so that the payload decoders are reached.
    let Some((first, payload)) = data.split_first() else { return };
    let mut framed = vec![1, first % 2];
    framed.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    framed.extend_from_slice(&[0; 8]);
    framed.extend_from_slice(payload);
    check(&framed);
    let made = frame::encode(data);
    assert_eq!(frame::decode(&made).expect("what was encoded can be read"), data);
});

fn check(bytes: &[u8]) {
    let decoded = frame::decode(bytes);
    let mut out = b"before".to_vec();
    let appended = frame::decode_into(bytes, &mut out);
    assert_eq!(decoded.is_ok(), appended.is_ok());
    match decoded {
        Ok(raw) => {
            assert!(raw.len() <= CHUNK_BYTES);
            assert_eq!(frame::raw_len(bytes).ok(), Some(raw.len()));
            assert_eq!(out, [b"before", &raw[..]].concat());
        }
        Err(_) => assert_eq!(out, b"before", "an error left bytes behind"),
    }
}

/// Valid frames to start from.
fn seed() {
    for (name, raw) in [
        ("empty", &b""[..]),
        ("raw", b"hello"),
        ("zstd", &[b'a'; 4096]),
    ] {
        monofs_fuzz::keep("frame", name, &frame::encode(raw));
    }
}
