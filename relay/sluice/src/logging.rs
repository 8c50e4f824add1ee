//! The log on standard error.

use sluice_config::LogLevel;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

/// The level of the log, which the configuration changes unless the command line has fixed it.
pub(crate) struct Logging {
    handle: Handle<LevelFilter, Registry>,
    fixed: bool,
}

impl Logging {
    /// Starts logging. `fixed`: what the command line says.
    pub(crate) fn start(fixed: Option<LevelFilter>) -> Self {
        let (filter, handle) = Layer::new(fixed.unwrap_or(LevelFilter::INFO));
        let console = fmt::layer().with_writer(std::io::stderr).with_target(false);
        tracing_subscriber::registry().with(filter).with(console).init();
        Logging { handle, fixed: fixed.is_some() }
    }

    /// Takes the level of a configuration over.
    pub(crate) fn set(&self, level: LogLevel) {
        if !self.fixed {
            // It only fails where there is no subscriber any more.
            let _ = self.handle.modify(|filter| *filter = filter_of(level));
        }
    }
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
