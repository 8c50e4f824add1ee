//! Which driver moves packets, and why.

use std::time::Duration;

use sluice_base::io::{DriverError, Waker};
use sluice_config::{Config, Driver};
use sluice_net::{Epoll, EpollOptions, Features, Ring, RingBuilder, RingOptions};

use crate::cli::Failure;

/// The driver of every worker.
#[derive(Debug)]
pub(crate) enum Choice {
    /// io_uring, with these features.
    Ring(Features),
    /// epoll; and if it was not asked for, the reason.
    Epoll(Option<DriverError>),
}

impl Choice {
    /// Takes io_uring wherever it works, unless the configuration says otherwise.
    pub(crate) fn of(config: &Config) -> Result<Self, Failure> {
        let waits = config.io.wait_budget_us > 0;
        if config.io.driver == Driver::Epoll && waits {
            return Err("io.wait_budget_us is for io_uring: set it to 0, or io.driver to \"io_uring\"".to_owned());
        }
        if config.io.driver == Driver::Epoll {
            return Ok(Choice::Epoll(None));
        }
        match sluice_net::probe(&config.io.disable) {
            Ok(features) if waits && !features.can_wait_longer() => {
                Err("io.wait_budget_us needs Linux 6.4: set it to 0".to_owned())
            }
            Ok(features) => Ok(Choice::Ring(features)),
            Err(error) if config.io.driver == Driver::Auto => Ok(Choice::Epoll(Some(error))),
            Err(error) => Err(format!("io.driver = \"io_uring\": {error}")),
        }
    }

    /// The name in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Choice::Ring(_) => "io_uring",
            Choice::Epoll(_) => "epoll",
        }
    }

    /// For the operator: what is used, and what is in the way of more.
    pub(crate) fn describe(&self) -> String {
        match self {
            Choice::Ring(features) => features.describe(),
            Choice::Epoll(None) => "epoll, as configured; io_uring takes less of a processor".to_owned(),
            Choice::Epoll(Some(why)) => format!("epoll, since io_uring cannot be used: {why}"),
        }
    }
}

/// A ring that awaits its worker's thread.
pub(crate) fn ring(
    features: &Features,
    sockets_max: u32,
    slots: u32,
    wait_budget: Duration,
) -> Result<(RingBuilder, Waker), Failure> {
    let options = RingOptions { sockets_max, slots, wait_budget };
    let builder = RingBuilder::new(&options, features).map_err(|e| e.to_string())?;
    let waker = builder.waker();
    Ok((builder, waker))
}

/// Called on the worker's thread.
pub(crate) fn enable(builder: RingBuilder) -> Result<Ring, Failure> {
    builder.enable().map_err(|error| error.to_string())
}

/// Called on the worker's thread.
pub(crate) fn epoll(sockets_max: u32, slots: u32, disable: &[String]) -> Result<Epoll, Failure> {
    let on = |feature: &str| !disable.iter().any(|name| name == feature);
    let options = EpollOptions { sockets_max, slots, udp_gro: on("udp_gro"), udp_segment: on("udp_segment") };
    Epoll::new(&options).map_err(|error| error.to_string())
}
