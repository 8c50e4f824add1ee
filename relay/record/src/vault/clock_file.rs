//! What a start knows of the clock of those before it: `clock` in the state directory.
//!
//! ```text
//! sluice clock 1
//! latest 1795867200
//! confirmed 1795867200
//! newest-key 2026-11-28
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sluice_privacy::Day;
use sluice_privacy::clock::Remembered;

use super::files::{at, replace};
use super::options::VaultError;

/// The file.
pub(super) struct ClockFile {
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) says: Option<Says>,
}

/// What stands in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Says {
    pub(super) remembered: Remembered,
    /// The day of the newest key that was made: tells a lost directory of keys from one that never had any.
    pub(super) newest_key: Option<Day>,
}

impl ClockFile {
    /// Reads it; what cannot be understood says nothing.
    pub(super) fn open(state_directory: &Path) -> Result<Self, VaultError> {
        let path = state_directory.join("clock");
        let says = match fs::read(&path) {
            Ok(bytes) => std::str::from_utf8(&bytes).ok().and_then(Says::read),
            Err(why) if why.kind() == io::ErrorKind::NotFound => None,
            Err(why) => return Err(at(&path, why)),
        };
        Ok(ClockFile { path, says })
    }

    /// Writes it where it does not say the same but for less than an hour.
    pub(super) fn remember(&mut self, says: Says) -> io::Result<()> {
        if self.is_fresh(says) { Ok(()) } else { self.write(says) }
    }

    fn is_fresh(&self, says: Says) -> bool {
        self.says.is_some_and(|old| {
            let near = |old: u64, new: u64| old.abs_diff(new) < 3600;
            let (was, is) = (old.remembered, says.remembered);
            old.newest_key == says.newest_key && near(was.latest, is.latest) && near(was.confirmed, is.confirmed)
        })
    }

    pub(super) fn write(&mut self, says: Says) -> io::Result<()> {
        replace(&self.path, says.text().as_bytes())?;
        self.says = Some(says);
        Ok(())
    }
}

impl Says {
    fn text(&self) -> String {
        let Remembered { latest, confirmed } = self.remembered;
        let newest_key = self.newest_key.map(|day| format!("newest-key {day}\n")).unwrap_or_default();
        format!("{HEAD}\nlatest {latest}\nconfirmed {confirmed}\n{newest_key}")
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut value = |name| lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
        (value("sluice clock")? == "1").then_some(())?;
        let latest = value("latest")?.parse().ok()?;
        let confirmed = value("confirmed")?.parse().ok()?;
        let newest_key = match value("newest-key") {
            Some(day) => Some(Day::parse(day)?),
            None => None,
        };
        Some(Says { remembered: Remembered { latest, confirmed }, newest_key })
    }
}

const HEAD: &str = "sluice clock 1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_not() {
        let says = Says { remembered: Remembered { latest: 12, confirmed: 3 }, newest_key: Some(Day(4)) };
        assert_eq!(Says::read(&says.text()), Some(says));
        let never = Says { newest_key: None, ..says };
        assert_eq!(Says::read(&never.text()), Some(never));
        for text in ["", "\0\0\0", "sluice clock 2\nlatest 1\nconfirmed 1\n", "sluice clock 1\nlatest 1\nconf"] {
            assert_eq!(Says::read(text), None, "{text}");
        }
    }
}
