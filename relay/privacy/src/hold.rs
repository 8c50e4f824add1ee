//! Legal holds: what may be put under one, and what stays because of it.
//!
//! A hold is named and dated, and lifted by hand alone. It keeps records; of their addresses it keeps what could be
//! read at that moment, under a key of its own.

use std::fmt;

use sluice_base::limits::{HOLD_NAME_BYTES_MAX, HOLD_SESSIONS_MAX, HOLDS_MAX};

use crate::Day;

/// Why something is not put under a hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The name is none.
    Name,
    /// Another has it.
    Taken,
    /// Its date is over already.
    Past,
    /// Nothing to hold, or too much.
    Sessions,
    /// There are as many as may be.
    Full,
}

/// What a hold has of a session's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// All of them, under its own key.
    Held,
    /// None: the key of that day was no more.
    KeyGone(Day),
    /// None: none were written, since the tenant keeps none or the disk took them only after the end of their key.
    NotKept,
}

/// A hold that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// How many sessions.
    pub sessions: usize,
    /// When it is to be looked at again, seconds since the Unix epoch.
    pub until: Option<u64>,
}

/// What becomes of the file of a key that was being made or destroyed when the process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pending {
    /// Its hold is there: it was made, or not lifted after all.
    Keep,
    /// Its hold is not.
    Destroy,
}

impl Wanted<'_> {
    /// Whether there may be such a hold beside the others.
    ///
    /// # Errors
    /// Why not.
    pub fn check<'o>(&self, others: impl IntoIterator<Item = &'o str>, now: u64) -> Result<(), Refusal> {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let begins = self.name.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || self.name.len() > HOLD_NAME_BYTES_MAX || !self.name.chars().all(known) {
            return Err(Refusal::Name);
        }
        if !(1..=HOLD_SESSIONS_MAX).contains(&self.sessions) {
            return Err(Refusal::Sessions);
        }
        if self.until.is_some_and(|until| until <= now) {
            return Err(Refusal::Past);
        }
        let mut count = 0;
        for other in others {
            count += 1;
            if other == self.name {
                return Err(Refusal::Taken);
            }
        }
        if count < HOLDS_MAX { Ok(()) } else { Err(Refusal::Full) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Name => write!(
                f,
                "a hold's name has 1 to {HOLD_NAME_BYTES_MAX} lower-case letters, digits and hyphens, and begins with \
                 a letter"
            ),
            Refusal::Taken => f.write_str("there is a hold of that name: lift it, or take another name"),
            Refusal::Past => f.write_str("the date of a hold is one to come"),
            Refusal::Sessions => {
                write!(f, "a hold is of 1 to {HOLD_SESSIONS_MAX} sessions: make several where there are more")
            }
            Refusal::Full => write!(f, "there are {HOLDS_MAX} holds already: lift one first"),
        }
    }
}

impl Addresses {
    /// Of a session that has had addresses under the key of `day`, which could be opened or not.
    pub const fn of(day: Option<Day>, is_open: bool) -> Self {
        match (day, is_open) {
            (_, true) => Addresses::Held,
            (Some(day), false) => Addresses::KeyGone(day),
            (None, false) => Addresses::NotKept,
        }
    }
}

impl Pending {
    /// By whether the store has the hold.
    pub const fn of(is_held: bool) -> Self {
        if is_held { Pending::Keep } else { Pending::Destroy }
    }
}

/// Whether a hold is to be looked at again. It holds all the same.
pub fn is_due(until: Option<u64>, now: u64) -> bool {
    until.is_some_and(|until| until <= now)
}

/// Entries of the audit before this may be removed: the horizon of their retention, unless a session is held that began
/// earlier.
pub fn audit_horizon(horizon: u64, oldest_held: Option<u64>) -> u64 {
    oldest_held.map_or(horizon, |began| began.min(horizon))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted<'static> = Wanted { name: "case-4711", sessions: 1, until: None };

    #[test]
    fn a_hold_has_a_name_of_its_own_and_a_date_to_come() {
        assert_eq!(WANTED.check(["case-4712"], 10), Ok(()));
        assert_eq!(WANTED.check(["case-4711"], 10), Err(Refusal::Taken));
        let long = "c".repeat(HOLD_NAME_BYTES_MAX + 1);
        for name in ["", "4711", "-", "Case", "192.0.2.7", "a b", "../a", &long] {
            assert_eq!(Wanted { name, ..WANTED }.check([], 10), Err(Refusal::Name), "{name}");
        }
        assert_eq!(Wanted { until: Some(10), ..WANTED }.check([], 10), Err(Refusal::Past));
        assert_eq!(Wanted { until: Some(11), ..WANTED }.check([], 10), Ok(()));
    }

    #[test]
    fn holds_and_their_sessions_have_a_bound() {
        for sessions in [0, HOLD_SESSIONS_MAX + 1] {
            assert_eq!(Wanted { sessions, ..WANTED }.check([], 10), Err(Refusal::Sessions));
        }
        assert_eq!(WANTED.check(vec!["other"; HOLDS_MAX], 10), Err(Refusal::Full));
        assert_eq!(WANTED.check(vec!["other"; HOLDS_MAX - 1], 10), Ok(()));
    }

    #[test]
    fn what_is_held_of_addresses_is_what_could_be_read() {
        assert_eq!(Addresses::of(Some(Day(1)), true), Addresses::Held);
        assert_eq!(Addresses::of(Some(Day(1)), false), Addresses::KeyGone(Day(1)));
        assert_eq!(Addresses::of(None, false), Addresses::NotKept);
    }

    #[test]
    fn the_audit_is_not_cut_within_what_is_held() {
        assert_eq!((audit_horizon(10, None), audit_horizon(10, Some(4)), audit_horizon(10, Some(40))), (10, 4, 10));
    }

    #[test]
    fn its_date_is_a_date_to_look_again() {
        assert!(!is_due(None, 10) && !is_due(Some(11), 10) && is_due(Some(10), 10));
    }
}
