//! Frames: one chunk of a blob, encoded once by the fetcher and kept byte for byte by every tier.
//!
//! ```text
//! offset 0  version  u8   = 1
//!        1  codec    u8   0 raw, 1 zstd
//!        2  raw_len  u32 little-endian, at most CHUNK_BYTES
//!        6  check    u64 little-endian, xxh3-64 of the raw bytes
//!       14  payload
//! ```
//!
//! Invariants: a decoded frame has exactly `raw_len` bytes and the announced checksum; decoding
//! never allocates more than [`CHUNK_BYTES`], whatever the input says. The checksum finds damage,
//! not malice: a blob's oid does that.

use std::borrow::Cow;
use std::cell::RefCell;

use bytes::Bytes;
use monofs_model::limits::CHUNK_BYTES;
use monofs_model::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 14;
/// Largest frame that [`encode`] yields.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + CHUNK_BYTES;

const VERSION: u8 = 1;
const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const ZSTD_LEVEL: i32 = 1;
/// Below this a zstd frame's own header eats what it saves.
const COMPRESS_BYTES_MIN: usize = 64;

thread_local! {
    /// A zstd context costs far more to make than a small chunk costs to code.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Number of chunks of a blob of `size` bytes: an empty blob has one, empty, chunk.
pub fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES as u64).max(1)
}

/// Raw bytes of chunk `index` of a blob of `size` bytes; 0 past its end.
pub fn chunk_len(size: u64, index: u64) -> usize {
    let start = index.saturating_mul(CHUNK_BYTES as u64);
    size.saturating_sub(start).min(CHUNK_BYTES as u64) as usize
}

/// Encodes one chunk. Compressed only when that saves at least a tenth.
///
/// # Panics
/// When `raw` is longer than [`CHUNK_BYTES`]: cutting is the caller's duty.
pub fn encode(raw: &[u8]) -> Bytes {
    assert!(
        raw.len() <= CHUNK_BYTES,
        "a chunk has at most {CHUNK_BYTES} bytes, not {}",
        raw.len()
    );
    let compressed = compress(raw);
    let (codec, payload) = match &compressed {
        Some(payload) => (CODEC_ZSTD, payload.as_slice()),
        None => (CODEC_RAW, raw),
    };
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.push(VERSION);
    frame.push(codec);
    frame.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    frame.extend_from_slice(&xxh3_64(raw).to_le_bytes());
    frame.extend_from_slice(payload);
    frame.into()
}

fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    let payload = COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).ok()?),
        };
        compressor.compress(raw).ok()
    })?;
    (payload.len() <= raw.len() / 10 * 9).then_some(payload)
}

/// The header of a frame, checked as far as it can be without decoding.
#[derive(Debug, Clone, Copy)]
struct Header {
    codec: u8,
    raw_len: usize,
    check: u64,
}

/// Takes a frame apart; its payload is not looked at.
fn split(frame: &[u8]) -> Result<(Header, &[u8])> {
    let Some((header, payload)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Error::corrupt(format!(
            "frame: {} bytes are too short for a header",
            frame.len()
        )));
    };
    // Version and codec decide whether the rest can be understood.
    let [version, codec, rest @ ..] = header;
    if *version != VERSION {
        return Err(Error::corrupt(format!(
            "frame: version {version} is unknown (this program reads {VERSION})"
        )));
    }
    if !matches!(*codec, CODEC_RAW | CODEC_ZSTD) {
        return Err(Error::corrupt(format!("frame: codec {codec} is unknown")));
    }
    // A length beyond the bound is refused before anything is allocated for it.
    let (len, check) = rest.split_at(4);
    let raw_len = u32::from_le_bytes(len.try_into().expect("split at four")) as usize;
    let check = u64::from_le_bytes(check.try_into().expect("eight remain of twelve"));
    if raw_len > CHUNK_BYTES {
        return Err(Error::corrupt(format!(
            "frame: {raw_len} raw bytes are over the limit of {CHUNK_BYTES}"
        )));
    }
    Ok((
        Header {
            codec: *codec,
            raw_len,
            check,
        },
        payload,
    ))
}

/// Raw length that a frame announces; checks the header alone. Errors:
/// [`monofs_model::ErrorKind::Corrupt`].
pub fn raw_len(frame: &[u8]) -> Result<usize> {
    split(frame).map(|(header, _)| header.raw_len)
}

/// Decodes and checks one frame; an uncompressed one is borrowed. Errors:
/// [`monofs_model::ErrorKind::Corrupt`].
pub fn decode(frame: &[u8]) -> Result<Cow<'_, [u8]>> {
    let (header, payload) = split(frame)?;
    if header.codec == CODEC_RAW {
        verify(&header, payload)?;
        return Ok(Cow::Borrowed(payload));
    }
    let mut raw = Vec::new();
    decompress(&header, payload, &mut raw)?;
    Ok(Cow::Owned(raw))
}

/// Decodes and checks one frame; an uncompressed one is shared. Errors:
/// [`monofs_model::ErrorKind::Corrupt`].
pub fn decode_shared(frame: &Bytes) -> Result<Bytes> {
    Ok(match decode(frame)? {
        Cow::Borrowed(payload) => frame.slice_ref(payload),
        Cow::Owned(raw) => raw.into(),
    })
}

/// Decodes and checks one frame, appending to `out`, which is left as it was on an error.
/// Errors: [`monofs_model::ErrorKind::Corrupt`].
pub fn decode_into(frame: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let (header, payload) = split(frame)?;
    if header.codec == CODEC_RAW {
        verify(&header, payload)?;
        out.extend_from_slice(payload);
        return Ok(());
    }
    if out.is_empty() {
        return decompress(&header, payload, out);
    }
    let mut raw = Vec::new();
    decompress(&header, payload, &mut raw)?;
    out.extend_from_slice(&raw);
    Ok(())
}

/// Fills the empty `raw`.
fn decompress(header: &Header, payload: &[u8], raw: &mut Vec<u8>) -> Result<()> {
    raw.reserve(header.raw_len);
    let done = DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(payload, raw)
    });
    let checked = match done {
        Ok(_) => verify(header, raw),
        Err(e) => Err(Error::corrupt(format!("frame: zstd: {e}"))),
    };
    if checked.is_err() {
        raw.clear();
    }
    checked
}

fn verify(header: &Header, raw: &[u8]) -> Result<()> {
    if raw.len() != header.raw_len {
        return Err(Error::corrupt(format!(
            "frame: {} bytes where {} were announced",
            raw.len(),
            header.raw_len
        )));
    }
    if xxh3_64(raw) != header.check {
        return Err(Error::corrupt(format!(
            "frame: checksum mismatch over {} bytes",
            raw.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_header_is_what_the_format_says() {
        let frame = encode(b"hello");
        assert_eq!(frame[..6], [1, 0, 5, 0, 0, 0]);
        assert_eq!(frame[6..14], xxh3_64(b"hello").to_le_bytes());
        assert_eq!(&frame[14..], b"hello");
        // Golden: another implementation of xxh3-64 gives the same for the empty input.
        assert_eq!(encode(b"")[6..14], 0x2d06_8005_38d3_94c2_u64.to_le_bytes());
        assert_eq!(decode(&encode(b"")).unwrap(), &b""[..]);
    }

    #[test]
    fn what_shrinks_is_compressed_and_what_does_not_is_kept() {
        let text = vec![b'a'; CHUNK_BYTES];
        let frame = encode(&text);
        assert!(frame.len() < 1000 && frame[1] == CODEC_ZSTD);
        assert_eq!(decode(&frame).unwrap(), text);
        let noise: Vec<u8> = (0..5000u64)
            .map(|i| (xxh3_64(&i.to_le_bytes()) & 0xff) as u8)
            .collect();
        assert_eq!(encode(&noise)[1], CODEC_RAW);
        assert!(matches!(decode(&encode(&noise)).unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn a_frame_that_inflates_beyond_its_word_is_refused() {
        let mut bomb = encode(&vec![0; CHUNK_BYTES]).to_vec();
        bomb[2..6].copy_from_slice(&10u32.to_le_bytes());
        assert_eq!(decode(&bomb).unwrap_err().kind, ErrorKind::Corrupt);
        bomb[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&bomb).unwrap_err().kind, ErrorKind::Corrupt);
    }

    #[test]
    fn chunks_of_every_size_add_up() {
        for size in [
            0,
            1,
            CHUNK_BYTES as u64 - 1,
            CHUNK_BYTES as u64,
            CHUNK_BYTES as u64 + 1,
            7 << 20,
        ] {
            let count = chunk_count(size);
            assert_eq!(
                (0..count).map(|i| chunk_len(size, i) as u64).sum::<u64>(),
                size
            );
            assert_eq!(chunk_len(size, count), 0);
        }
        assert_eq!(chunk_count(0), 1);
    }

    proptest! {
        #[test]
        fn frames_round_trip(raw in proptest::collection::vec(any::<u8>(), 0..5000), repeat in 1usize..50, prefix: Vec<u8>) {
            let raw = raw.repeat(repeat);
            let frame = encode(&raw);
            prop_assert_eq!(raw_len(&frame).unwrap(), raw.len());
            prop_assert_eq!(&decode(&frame).unwrap()[..], &raw[..]);
            prop_assert_eq!(&decode_shared(&frame).unwrap()[..], &raw[..]);
            let mut out = prefix.clone();
            decode_into(&frame, &mut out).unwrap();
            prop_assert_eq!(out, [prefix, raw].concat());
        }

        #[test]
        fn no_bytes_can_make_the_decoder_panic(mut bytes: Vec<u8>, seem_valid: bool, codec in 0u8..3) {
            if seem_valid {
                bytes.splice(0..0, [VERSION, codec, 16, 0, 0, 0]);
            }
            let _ = decode(&bytes);
            let mut out = vec![7];
            if decode_into(&bytes, &mut out).is_err() {
                prop_assert_eq!(out, [7]);
            }
        }

        #[test]
        fn a_flipped_bit_is_found(text in "[a-d]{0,3000}", at: usize, bit in 0u8..8) {
            let mut frame = encode(text.as_bytes()).to_vec();
            let at = at % frame.len();
            frame[at] ^= 1 << bit;
            // zstd ignores a few header bits; whatever decodes must be the same bytes.
            if let Ok(raw) = decode(&frame) {
                prop_assert_eq!(&raw[..], text.as_bytes());
            }
        }
    }
}
