//! The explicit little encoding of rows that are not frames or directory records.
//!
//! Every row starts with a version byte; integers are big-endian; byte strings carry a u32 length.
//! Decoding is total: any bytes give a value or [`monofs_model::ErrorKind::Corrupt`].

use monofs_model::{Error, Oid, Result};

/// Builds a row.
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let len = u32::try_from(value.len()).expect("rows hold names and numbers, never contents");
        self.0.extend_from_slice(&len.to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a row back.
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Decoder<'a> {
    /// Checks the version byte; `what` names the row in errors.
    pub(crate) fn new(row: &'a [u8], version: u8, what: &'static str) -> Result<Self> {
        let mut decoder = Self { rest: row, what };
        match decoder.u8()? {
            found if found == version => Ok(decoder),
            found => Err(Error::corrupt(format!(
                "{what}: version {found} is unknown (this program reads {version})"
            ))),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.take::<1>().map(|[value]| value)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = u32::from_be_bytes(self.take()?) as usize;
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str> {
        let what = self.what;
        std::str::from_utf8(self.bytes()?)
            .map_err(|_| Error::corrupt(format!("{what}: text is not UTF-8")))
    }

    pub(crate) fn oid(&mut self) -> Result<Oid> {
        let what = self.what;
        Oid::from_bytes(self.bytes()?).map_err(|e| Error::corrupt(format!("{what}: {e}")))
    }

    /// Ends the row: nothing may remain.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "{}: {} bytes too many",
            self.what,
            self.rest.len()
        )))
    }

    fn short(&self) -> Error {
        Error::corrupt(format!("{}: the row ends early", self.what))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    const VERSION: u8 = 3;

    fn sample() -> Vec<u8> {
        let mut row = Encoder::new(VERSION);
        row.u8(7).u64(1 << 40).bytes(b"text").bytes(&[1; 20]);
        row.finish()
    }

    #[test]
    fn the_layout_is_what_the_format_says() {
        let mut row = Encoder::new(VERSION);
        row.u8(7).u64(258).bytes(b"ab");
        let expected = [
            &[VERSION, 7][..],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0, 0, 0, 2, b'a', b'b'],
        ];
        assert_eq!(row.finish(), expected.concat());
    }

    #[test]
    fn what_was_written_is_read_back_in_order() {
        let row = sample();
        let mut decoder = Decoder::new(&row, VERSION, "sample").unwrap();
        assert_eq!(decoder.u8().unwrap(), 7);
        assert_eq!(decoder.u64().unwrap(), 1 << 40);
        assert_eq!(decoder.text().unwrap(), "text");
        assert_eq!(decoder.oid().unwrap().as_bytes(), [1; 20]);
        decoder.finish().unwrap();
    }

    #[test]
    fn a_row_of_another_version_is_refused_with_both_versions() {
        let row = sample();
        let error = Decoder::new(&row, VERSION + 1, "sample").map(drop);
        let error = error.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt);
        assert!(
            error.message.contains("version 3") && error.message.contains("reads 4"),
            "{error}"
        );
    }

    #[test]
    fn a_row_that_ends_early_or_late_is_damage_wherever_it_is_cut() {
        let row = sample();
        for len in 0..row.len() {
            let read = Decoder::new(&row[..len], VERSION, "sample").and_then(|mut decoder| {
                decoder.u8()?;
                decoder.u64()?;
                decoder.bytes()?;
                decoder.oid()?;
                decoder.finish()
            });
            assert_eq!(read.unwrap_err().kind, ErrorKind::Corrupt, "{len} bytes");
        }
        let mut decoder = Decoder::new(&row, VERSION, "sample").unwrap();
        decoder.u8().unwrap();
        let error = decoder.finish().unwrap_err();
        assert!(error.message.contains("bytes too many"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_text_and_no_object_id_are_damage() {
        let mut row = Encoder::new(VERSION);
        row.bytes(b"\xff").bytes(b"short");
        let row = row.finish();
        let mut decoder = Decoder::new(&row, VERSION, "sample").unwrap();
        assert_eq!(decoder.text().unwrap_err().kind, ErrorKind::Corrupt);
        assert_eq!(decoder.oid().unwrap_err().kind, ErrorKind::Corrupt);
    }

    proptest! {
        #[test]
        fn byte_strings_and_numbers_round_trip(one: Vec<u8>, number: u64, two: Vec<u8>) {
            let mut row = Encoder::new(VERSION);
            row.bytes(&one).u64(number).bytes(&two);
            let row = row.finish();
            let mut decoder = Decoder::new(&row, VERSION, "sample").unwrap();
            prop_assert_eq!(decoder.bytes().unwrap(), &one[..]);
            prop_assert_eq!(decoder.u64().unwrap(), number);
            prop_assert_eq!(decoder.bytes().unwrap(), &two[..]);
            prop_assert!(decoder.finish().is_ok());
        }
    }
}
