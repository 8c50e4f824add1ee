//! A ceiling on a rate, from the outside: what may pass at most in any window.

use sluice_base::Mono;

/// Part of a second's worth that the relay may lease at once on top of a full bucket.
const LEASES_PER_SECOND: u64 = 50;
/// The longest packet, which a lease may round up to.
const PACKET: u64 = 2048;

/// Tokens that come at a rate and are never more than about a second's worth.
pub(crate) struct Bucket {
    per_second: u64,
    tokens: u64,
    at: Mono,
}

impl Bucket {
    pub(crate) fn new(per_second: u64) -> Self {
        Bucket { per_second, tokens: most(per_second), at: Mono::default() }
    }

    /// A lower rate begins with a full bucket; a higher one changes nothing.
    pub(crate) fn lower(&mut self, per_second: u64) {
        if per_second < self.per_second {
            *self = Bucket { at: self.at, ..Bucket::new(per_second) };
        }
    }

    /// Takes `n`; false where the rate does not allow it.
    pub(crate) fn take(&mut self, now: Mono, n: u64) -> bool {
        let gained = u128::from(self.per_second) * now.since(self.at).as_nanos() / 1_000_000_000;
        self.tokens = most(self.per_second).min(self.tokens.saturating_add(gained as u64 + 1));
        self.at = now;
        let enough = self.tokens >= n;
        self.tokens = self.tokens.saturating_sub(n);
        enough
    }
}

const fn most(per_second: u64) -> u64 {
    per_second + per_second / LEASES_PER_SECOND + PACKET
}
