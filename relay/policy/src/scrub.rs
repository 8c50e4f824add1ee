//! What a plugin's own words may not carry out: addresses, tokens of persons, control characters, length.

use std::net::{IpAddr, SocketAddr};

use sluice_base::limits::{PLUGIN_LINE_BYTES_MAX, PLUGIN_WORD_BYTES_MAX};

/// What stands in place of an address.
const ADDRESS: &str = "<address>";

/// A line of a plugin's log: one line, of bounded length, in which no word reads as an address.
pub(crate) fn line(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(PLUGIN_LINE_BYTES_MAX));
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let word = if has_address(word) { ADDRESS } else { word };
        if clean.len() + word.len() + 1 > PLUGIN_LINE_BYTES_MAX {
            clean.push('…');
            break;
        }
        if !clean.is_empty() {
            clean.push(' ');
        }
        clean.push_str(word);
    }
    clean
}

/// A label's value, or `None` where it must count as "other".
pub(crate) fn label(text: &str) -> Option<&str> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'/');
    let is_label = !text.is_empty() && text.len() <= PLUGIN_WORD_BYTES_MAX && text.bytes().all(is_word);
    (is_label && !has_address(text) && !looks_like_token(text)).then_some(text)
}

/// Whether a word is long and hexadecimal enough for a token of any question, or an address of IPv6: a counter by
/// person would outlive what is kept of that person.
fn looks_like_token(word: &str) -> bool {
    const TOKEN_DIGITS: usize = 32;
    word.split(|c: char| !c.is_ascii_hexdigit()).any(|run| run.len() >= TOKEN_DIGITS)
}

/// Whether a word is an address, or has one in it: in brackets, with a port, a prefix, or after a sign of equality.
fn has_address(word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    word.split(|c| !is_part(c)).any(|part| {
        let part = part.trim_matches('.');
        let bare = part.trim_matches(':');
        let is_address = |text: &str| text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok();
        (part.contains('.') || part.contains("::") || part.matches(':').count() > 2)
            && (is_address(part) || is_address(bare))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_loses_its_addresses_and_nothing_else() {
        for (text, clean) in [
            ("client 192.0.2.7 refused", "client <address> refused"),
            ("peer=192.0.2.7:4000,", "<address>"),
            ("[2001:db8::1]:443 and ::1", "<address> and <address>"),
            ("2001:db8:1:2:3:4:5:6", "<address>"),
            ("version 1.2.3 at 12:30:15 took 0.5 ms", "version 1.2.3 at 12:30:15 took 0.5 ms"),
            ("two\nlines\u{7}", "two lines"),
        ] {
            assert_eq!(line(text), clean);
        }
    }

    #[test]
    fn a_line_has_an_end() {
        assert!(line(&"word ".repeat(100_000)).len() <= PLUGIN_LINE_BYTES_MAX + '…'.len_utf8());
        assert!(line(&"w".repeat(100_000)).len() <= '…'.len_utf8());
    }

    #[test]
    fn a_label_is_a_short_word_and_no_address_and_no_token() {
        assert_eq!(label("DE-BY"), Some("DE-BY"));
        assert_eq!(label(&"0f".repeat(15)), Some(&*"0f".repeat(15)));
        let token = "0123456789abcdef0123456789ABCDEF";
        for no in ["", token, &format!("u-{token}"), "192.0.2.7", "::1", "two words", "\u{fc}", &"a".repeat(65)] {
            assert_eq!(label(no), None, "{no}");
        }
    }
}
