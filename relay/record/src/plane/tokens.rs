//! Pseudonyms of lines, for tenants whose plan asks for them: the key of each is random, in memory alone, and gone with
//! its window. A start of the process has others.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_base::Mono;
use sluice_base::memory::KeyCell;
use sluice_crypto::{HmacSha256Key, Zeroizing, hex_encode};
use sluice_privacy::Moment;
use sluice_privacy::plan::Window;

use crate::vault::Platform;

/// The keys of windows that are not over.
#[derive(Default)]
pub(super) struct Tokens(HashMap<(Arc<str>, Window), Key>);

struct Key {
    /// The window's number since the Unix epoch.
    number: u64,
    made: Mono,
    cell: Box<dyn KeyCell>,
}

impl Tokens {
    /// The pseudonym of a text for a tenant; none where no memory can be had for its key.
    pub(super) fn of(
        &mut self,
        tenant: &Arc<str>,
        window: Window,
        text: &str,
        platform: &dyn Platform,
        now: Moment,
    ) -> Option<String> {
        self.forget(now);
        let name = (tenant.clone(), window);
        if !self.0.contains_key(&name) {
            let mut bytes = Zeroizing::new([0; 32]);
            platform.random(&mut *bytes);
            let cell = platform.cells().cell(*bytes).ok()?;
            self.0.insert(name.clone(), Key { number: number(window, now), made: now.boot, cell });
        }
        let key = HmacSha256Key::new(self.0.get(&name)?.cell.bytes());
        Some(format!("user-{}", hex_encode(&key.sign(&[text.as_bytes()])[..10])))
    }

    /// Drops the keys of windows that are over by either clock.
    pub(super) fn forget(&mut self, now: Moment) {
        self.0.retain(|(_, window), key| {
            key.number == number(*window, now) && now.boot.since(key.made).as_secs() < window.seconds()
        });
    }
}

fn number(window: Window, now: Moment) -> u64 {
    now.unix_seconds / window.seconds()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::Machine;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_pseudonym_lasts_for_its_window_and_its_key_no_longer() {
        let (machine, mut tokens) = (Machine::new(1), Tokens::default());
        let mut of = |tenant: &str, window, machine: &Machine| {
            let token = tokens.of(&Arc::from(tenant), window, "user-1", machine, machine.moment()).unwrap();
            (token, tokens.0.len())
        };
        let first = of("clinic", Window::Day, &machine).0;
        assert_eq!(of("clinic", Window::Day, &machine).0, first);
        assert_ne!(of("school", Window::Day, &machine).0, first);
        assert_ne!(of("clinic", Window::Hour, &machine), (first.clone(), 2));
        machine.pass(HOUR);
        assert_eq!(of("clinic", Window::Day, &machine), (first.clone(), 2), "the hour's key is gone");
        machine.set_wall_clock(machine.moment().unix_seconds - 24 * 3600);
        assert_ne!(of("clinic", Window::Day, &machine).0, first, "the clock was set");
        machine.pass(24 * HOUR);
        tokens.forget(machine.moment());
        assert!(tokens.0.is_empty());
    }
}
