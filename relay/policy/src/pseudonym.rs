//! Keyed tokens that rotate.

use std::sync::Mutex;

use sluice_crypto::{HmacSha256Key, derive, hex_encode};

use crate::bindings::sluice::policy::types::Window;
use crate::lock;

/// Bytes of a token: none of a tenant's meets another.
const TOKEN_BYTES: usize = 16;

/// Tokens under a key for each window of time. A window's key cannot be had again when its time is over: the one it
/// was made of has been made into the next.
pub(crate) struct Rotating {
    hour: Mutex<Chain>,
    day: Mutex<Chain>,
    week: Mutex<Chain>,
}

struct Chain {
    root: [u8; 32],
    window: Option<(u64, HmacSha256Key)>,
}

impl Rotating {
    /// Under a root of its own.
    pub(crate) fn new(root: &[u8; 32]) -> Self {
        let chain = |name: &[u8]| Mutex::new(Chain { root: derived(root, name), window: None });
        Rotating { hour: chain(b"hour"), day: chain(b"day"), week: chain(b"week") }
    }

    /// The token of these bytes.
    pub(crate) fn token(&self, window: Window, unix_seconds: u64, data: &[&[u8]]) -> String {
        let (chain, seconds) = match window {
            Window::Hour => (&self.hour, 3600),
            Window::Day => (&self.day, 86_400),
            Window::Week => (&self.week, 7 * 86_400),
        };
        lock(chain).token(unix_seconds / seconds, data)
    }
}

impl Chain {
    fn token(&mut self, index: u64, data: &[&[u8]]) -> String {
        let Chain { root, window } = self;
        let key = match window {
            Some((known, key)) if *known == index => key,
            _ => {
                let key = HmacSha256Key::new(&derived(root, b"window"));
                *root = derived(root, b"next");
                &window.insert((index, key)).1
            }
        };
        hex_encode(&key.sign(data)[..TOKEN_BYTES])
    }
}

/// A key for one purpose.
pub(crate) fn derived(root: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    **derive(root, purpose).expose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_within_its_window_and_never_again() {
        let tokens = Rotating::new(&[1; 32]);
        let at = |seconds| tokens.token(Window::Hour, seconds, &[b"192.0.2.7"]);
        let first = at(7200);
        assert_eq!(first, at(7200 + 3599));
        assert_ne!(first, at(7200 + 3600));
        assert_ne!(first, at(7200), "a clock that is set back brings no former key back");
        assert_ne!(first, tokens.token(Window::Day, 7200, &[b"192.0.2.7"]));
    }

    #[test]
    fn two_roots_have_nothing_in_common() {
        let of = |root| Rotating::new(&[root; 32]).token(Window::Week, 0, &[b"a"]);
        assert_ne!(of(1), of(2));
    }
}
