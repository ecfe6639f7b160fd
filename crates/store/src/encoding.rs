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
