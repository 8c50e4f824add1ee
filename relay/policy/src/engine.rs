//! Which of wasmtime's engines runs the plugins, and the clock that interrupts them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, Thread};
use std::time::{Duration, Instant};

use sluice_base::limits::{
    PLUGIN_CACHE_BYTES_MAX, PLUGIN_PARTS_MAX, PLUGIN_STACK_BYTES_MAX, PLUGIN_TABLE_ELEMENTS_MAX,
};
use wasmtime::{
    Cache, CacheConfig, Config, Engine, Instance, InstanceAllocationStrategy, Module, PoolingAllocationConfig, Store,
};

/// What an operator may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EngineChoice {
    /// Native code where memory may be made executable, else the interpreter.
    #[default]
    Auto,
    /// Native code or nothing.
    Cranelift,
    /// The interpreter.
    Pulley,
}

impl EngineChoice {
    /// Every choice with its name.
    pub const NAMED: &'static [(&'static str, EngineChoice)] =
        &[("auto", EngineChoice::Auto), ("cranelift", EngineChoice::Cranelift), ("pulley", EngineChoice::Pulley)];
}

/// What runs the plugins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EngineKind {
    /// Native code.
    Cranelift,
    /// wasmtime's portable interpreter: no memory has to be executable.
    Pulley,
}

impl EngineKind {
    /// Its name in the configuration and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            EngineKind::Cranelift => "cranelift",
            EngineKind::Pulley => "pulley",
        }
    }
}

/// A running engine.
pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) kind: EngineKind,
    /// Why it is that one.
    pub(crate) reason: String,
    pub(crate) ticker: Ticker,
    /// Of what was compiled before, where there is one.
    pub(crate) cache: Option<Cache>,
}

/// How much of everything there may be at once.
#[derive(Clone, Copy)]
pub(crate) struct Pool {
    pub(crate) memory_bytes: usize,
    /// Instances at the same time.
    pub(crate) instances: u32,
    /// Whether what guests execute is counted.
    pub(crate) fuel: bool,
}

impl Running {
    /// Starts the engine of a choice.
    pub(crate) fn start(choice: EngineChoice, pool: Pool, folder: Option<&Path>) -> Result<Self, String> {
        let native = || runs(EngineKind::Cranelift, pool);
        let (kind, reason) = match choice {
            EngineChoice::Pulley => (EngineKind::Pulley, "it is configured".to_owned()),
            EngineChoice::Cranelift => match native() {
                Ok(_) => (EngineKind::Cranelift, "it is configured".to_owned()),
                Err(error) => return Err(no_native_code(&error)),
            },
            EngineChoice::Auto => match native() {
                Ok(_) => (EngineKind::Cranelift, "memory may be made executable".to_owned()),
                Err(_) => (EngineKind::Pulley, "memory may not be made executable here".to_owned()),
            },
        };
        let cache = folder.map(cache).transpose().map_err(|error| format!("no cache for plugins: {error:#}"))?;
        let engine = runs(kind, pool).and_then(|mapped| engine(kind, pool, mapped, cache.clone()));
        let engine = engine.map_err(|error| format!("no engine for plugins: {error:#}"))?;
        let ticker = Ticker::start(engine.clone())?;
        Ok(Running { engine, kind, reason, ticker, cache })
    }
}

fn no_native_code(error: &wasmtime::Error) -> String {
    format!(
        "policy.engine = \"cranelift\" needs memory that may be made executable ({error:#}): remove \
         MemoryDenyWriteExecute from the unit, or say \"auto\" or \"pulley\""
    )
}

/// Whether code of this kind can be run, by running some, and whether memories may begin as a mapped file: a filter of
/// system calls may forbid the file in memory that it takes.
fn runs(kind: EngineKind, pool: Pool) -> wasmtime::Result<bool> {
    probe(kind, pool, true).map(|()| true).or_else(|_| probe(kind, pool, false).map(|()| false))
}

fn probe(kind: EngineKind, pool: Pool, mapped: bool) -> wasmtime::Result<()> {
    let engine = engine(kind, Pool { instances: 1, fuel: false, ..pool }, mapped, None)?;
    // (module (func (export "f")) (memory 1) (data (i32.const 0) "x"))
    const LITTLE: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\x07\x05\x01\x01f\0\0\
          \x0a\x04\x01\x02\0\x0b\x0b\x07\x01\0\x41\0\x0b\x01x";
    let module = Module::new(&engine, LITTLE)?;
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1);
    let instance = Instance::new(&mut store, &module, &[])?;
    instance.get_typed_func::<(), ()>(&mut store, "f")?.call(&mut store, ())
}

/// Compiled components in a folder: named by what they were made of, and the oldest go where there are too many.
fn cache(folder: &Path) -> wasmtime::Result<Cache> {
    let mut config = CacheConfig::new();
    config.with_directory(folder).with_files_total_size_soft_limit(PLUGIN_CACHE_BYTES_MAX);
    // Nothing is compressed anew: a start must not cost a processor minutes.
    config.with_optimized_compression_usage_counter_threshold(u64::MAX);
    Cache::new(config)
}

fn engine(kind: EngineKind, pool: Pool, mapped: bool, cache: Option<Cache>) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.cache(cache);
    config.memory_init_cow(mapped);
    if kind == EngineKind::Pulley {
        config.target("pulley64")?;
    }
    config.wasm_component_model(true).epoch_interruption(true).max_wasm_stack(PLUGIN_STACK_BYTES_MAX);
    config.consume_fuel(pool.fuel);
    // Not more of the address space than an instance may use: its accesses are compared, not guarded.
    config.memory_reservation(pool.memory_bytes as u64).memory_guard_size(0).memory_may_move(false);
    config.memory_reservation_for_growth(0);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(pool)));
    Engine::new(&config)
}

fn pooling(pool: Pool) -> PoolingAllocationConfig {
    let mut pooling = PoolingAllocationConfig::new();
    let parts = pool.instances * PLUGIN_PARTS_MAX;
    pooling
        .total_component_instances(pool.instances)
        .total_core_instances(parts)
        .total_memories(pool.instances * 4)
        .total_tables(parts)
        .max_core_instances_per_component(PLUGIN_PARTS_MAX)
        .max_memories_per_component(4)
        .max_tables_per_component(PLUGIN_PARTS_MAX)
        .table_elements(PLUGIN_TABLE_ELEMENTS_MAX)
        .max_memory_size(pool.memory_bytes)
        // A slot whose last instance was of the same component is taken over with its pages mapped.
        .max_unused_warm_slots(pool.instances)
        .linear_memory_keep_resident(64 << 10);
    pooling
}

/// Advances the engine's epoch once a millisecond while any guest runs, so that none runs for longer than it may.
#[derive(Clone)]
pub(crate) struct Ticker {
    running: Arc<AtomicUsize>,
    thread: Thread,
}

/// A guest runs.
pub(crate) struct Ticking(Arc<AtomicUsize>);

/// One epoch.
const TICK: Duration = Duration::from_millis(1);

impl Ticker {
    fn start(engine: Engine) -> Result<Self, String> {
        let running = Arc::new(AtomicUsize::new(0));
        let seen = Arc::downgrade(&running);
        let weak = engine.weak();
        drop(engine);
        let tick = move || {
            while let (Some(running), Some(engine)) = (seen.upgrade(), weak.upgrade()) {
                // Whoever begins unparks: a guest that begins between the look and the park is not missed.
                match running.load(Ordering::SeqCst) {
                    0 => std::thread::park_timeout(Duration::from_secs(1)),
                    _ => {
                        std::thread::sleep(TICK);
                        engine.increment_epoch();
                    }
                }
            }
        };
        let thread = Builder::new().name("policy-clock".to_owned()).spawn(tick);
        let thread = thread.map_err(|error| format!("no thread for the plugins' clock: {error}"))?.thread().clone();
        Ok(Ticker { running, thread })
    }

    /// A guest begins.
    pub(crate) fn begin(&self) -> Ticking {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Ticking(self.running.clone())
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Epochs until `deadline`: at least one, since the one that runs may end at once.
pub(crate) fn epochs_until(deadline: Instant) -> u64 {
    deadline.saturating_duration_since(Instant::now()).as_millis() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_that_is_tried_runs_on_either_engine_and_without_a_mapped_file() {
        let pool = Pool { memory_bytes: 1 << 20, instances: 1, fuel: false };
        for kind in [EngineKind::Cranelift, EngineKind::Pulley] {
            for mapped in [true, false] {
                probe(kind, pool, mapped).unwrap();
            }
        }
    }
}
