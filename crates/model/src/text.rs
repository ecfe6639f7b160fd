//! Text for people, wherever it is shown: names that cannot pass for others, sizes. Pure.

/// Whether a character hides, or changes the order of what follows: shown as it is, a name could
/// pass for another, or drive a terminal.
pub fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

/// Text with its odd characters as escapes.
pub fn clean(text: &str) -> String {
    escaped(text.as_bytes(), is_odd)
}

/// Raw name bytes, odd characters as escapes; what is no UTF-8 is shown as `\xff`.
pub fn clean_bytes(bytes: &[u8]) -> String {
    escaped(bytes, is_odd)
}

/// Bytes as text, with the characters that `hide` names as escapes; what is no UTF-8 is shown as
/// `\xff`.
pub fn escaped(bytes: &[u8], hide: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if hide(c) {
                shown.extend(c.escape_default())
            } else {
                shown.push(c)
            }
        }
        chunk
            .invalid()
            .iter()
            .for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
    }
    shown
}

/// Bytes in binary units: `512 B`, `1.3 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_pass_for_others_or_drive_a_terminal_are_shown_escaped() {
        assert_eq!(clean("plain ümlaut"), "plain ümlaut");
        assert_eq!(clean("a\u{202e}gnp.exe"), "a\\u{202e}gnp.exe");
        assert_eq!(clean("\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(clean("a\u{200b}b\u{feff}"), "a\\u{200b}b\\u{feff}");
        assert_eq!(clean("two\nlines"), "two\\nlines");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_one_by_one() {
        assert_eq!(clean_bytes(b"a\xff\xfeb"), "a\\xff\\xfeb");
        assert_eq!(clean_bytes("é".as_bytes()), "é");
        assert_eq!(clean_bytes(&"é".as_bytes()[..1]), "\\xc3");
        assert_eq!(escaped(b"a\tb", |c| c == '\t'), "a\\tb");
    }

    #[test]
    fn sizes_are_rounded_into_the_unit_in_which_they_are_read() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size((1 << 20) - 1), "1.0 MiB", "never 1024.0 KiB");
        assert_eq!(size(1_395_864_371), "1.3 GiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
    }
}
