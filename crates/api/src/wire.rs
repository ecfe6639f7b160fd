//! What messages leave out, and how they carry bytes.

/// A text that is not there is empty in messages.
pub fn said(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A number that is not told is 0 in messages.
pub fn told(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

/// Digest bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_leaves_out_is_not_there() {
        assert_eq!((said(""), said("x")), (None, Some("x".to_owned())));
        assert_eq!((told(0), told(7)), (None, Some(7)));
        assert_eq!(hex(&[0, 0xab, 0x0f]), "00ab0f");
    }
}
