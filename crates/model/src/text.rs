//! Text for people, wherever it is shown: names that cannot pass for others, sizes. Pure.

/// Whether a character hides, or changes the order of what follows: shown as it is, a name could
/// pass for another, or drive a terminal.
pub fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
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
