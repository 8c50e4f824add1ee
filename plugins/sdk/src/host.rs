//! What a plugin says to its host. In a component these are the imports; natively, where unit tests run, there is no
//! host, and [`listening`] hears what is said.

#[cfg(not(target_arch = "wasm32"))]
pub use native::{Heard, listening};

pub use crate::logging::Level;

/// The settings of this plugin for this tenant, as JSON.
pub fn settings() -> String {
    #[cfg(target_arch = "wasm32")]
    return crate::settings::document();
    #[cfg(not(target_arch = "wasm32"))]
    return native::settings();
}

/// Writes a line to the diagnostic log. It carries no personal data.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::logging::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    native::log(level, message);
}

/// Adds to a counter that the manifest declares; the labels' values stand in the order declared there.
pub fn count(counter: &str, labels: &[&str], delta: u64) {
    #[cfg(target_arch = "wasm32")]
    crate::metrics::add(counter, &labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>(), delta);
    #[cfg(not(target_arch = "wasm32"))]
    native::count(counter, labels, delta);
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::cell::RefCell;

    use super::Level;

    /// What a plugin said while somebody listened.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Heard {
        /// Lines of the diagnostic log.
        pub lines: Vec<(Level, String)>,
        /// Counters, with the values of their labels.
        pub counted: Vec<(String, Vec<String>, u64)>,
    }

    thread_local! {
        static HOST: RefCell<(String, Heard)> = RefCell::new(("{}".to_owned(), Heard::default()));
    }

    /// Runs a hook with these settings, as a fresh instance has them, and hears what it says.
    pub fn listening<R>(settings: &str, hook: impl FnOnce() -> R) -> (R, Heard) {
        HOST.with_borrow_mut(|host| *host = (settings.to_owned(), Heard::default()));
        let answer = hook();
        (answer, HOST.take().1)
    }

    pub(super) fn settings() -> String {
        HOST.with_borrow(|host| host.0.clone())
    }

    pub(super) fn log(level: Level, message: &str) {
        HOST.with_borrow_mut(|host| host.1.lines.push((level, message.to_owned())));
    }

    pub(super) fn count(counter: &str, labels: &[&str], delta: u64) {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        HOST.with_borrow_mut(|host| host.1.counted.push((counter.to_owned(), labels, delta)));
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::host;

        #[test]
        fn a_hook_has_the_settings_of_its_own_run_and_is_heard() {
            let (answer, heard) = listening("{\"a\":1}", || {
                host::log(Level::Warn, "odd");
                host::count("seen", &["yes"], 2);
                host::settings()
            });
            assert_eq!(answer, "{\"a\":1}");
            assert_eq!(heard.lines, [(Level::Warn, "odd".to_owned())]);
            assert_eq!(heard.counted, [("seen".to_owned(), vec!["yes".to_owned()], 2)]);
            assert_eq!(listening("{}", host::settings), ("{}".to_owned(), Heard::default()));
        }
    }
}
