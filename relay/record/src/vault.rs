//! The keys, and all that is done with them.
//!
//! Class `ip` is sealed under the key of its tenant and day, which is random, lies in locked memory and in a directory
//! that outlives a restart of the service and not of the machine, and dies as [`sluice_privacy::keyring`] says.
//! Everything else that is sealed is under the tenant's long-lived key, which lies in the state directory.

mod clock_file;
mod files;
mod gate;
mod hold_keys;
mod inner;
mod key_file;
mod options;

pub use files::{Destroyer, Overwriter, destroy_all};
pub use gate::Gate;
pub(crate) use hold_keys::{HoldId, HoldKeys};
pub use options::{Keys, Platform, VaultError, VaultOptions, VaultWarning};

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_base::memory::KeyCell;
use sluice_base::{Pii, limits};
use sluice_crypto::{NONCE_BYTES, Plaintext, Signer, Verifier, Zeroizing};
use sluice_privacy::keyring::{Due, Status, Stored, Today};
use sluice_privacy::seal::{self, Header};
use sluice_privacy::{Class, Clock, Day, Horizon, KeyName, Moment, clock, pseudonym};

use clock_file::ClockFile;
use files::{KeyDirectory, LongKeys};
use inner::Inner;
use key_file::KeyFile;

/// The keys of this node. Shared by both threads of the record plane, and by workers through [`Gate`] alone.
///
/// **No file is touched while the lock of what is in memory is held**, so a disk that hangs holds up nobody but who has
/// something of it: whoever makes a key, and [`Vault::sweep`]. A new key is published when its file is there, and one
/// whose end has come is gone from memory before its file is looked for.
pub struct Vault {
    platform: Arc<dyn Platform>,
    directory: Option<KeyDirectory>,
    long_directory: LongKeys,
    warnings: Vec<VaultWarning>,
    signer: Box<dyn KeyCell>,
    verifier: Verifier,
    /// The wall clock's second from which [`Gate`] looks closer.
    next_look: AtomicU64,
    /// Taken last, and never while a file is touched.
    inner: Mutex<Inner>,
    /// Of those below no two are ever held together.
    clock_file: Mutex<ClockFile>,
    /// Whoever makes a key of the day does so alone,
    making: Mutex<()>,
    /// a long-lived one,
    making_long: Mutex<()>,
    /// and whoever destroys files.
    destroying: Mutex<()>,
}

/// A clock that is so far behind what it was has not been corrected, but set.
const CLOCK_BEHIND_SECONDS: u64 = 3600;

/// How often the day or the clock may change while a key is made.
const KEY_TRIES: usize = 3;

/// A key that is no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DestroyedKey {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The day.
    pub day: Day,
    /// How long after its end.
    pub late: Duration,
}

/// What [`Vault::sweep`] did, and what was destroyed by others since the last one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Destroyed {
    /// The keys that are no more.
    pub keys: Vec<DestroyedKey>,
    /// Keys whose files are still there: they are used no more, and their destruction is tried again.
    pub failed: Vec<FailedDestruction>,
    /// Destroyed keys that are not among `keys`, since nobody had asked for too long.
    pub untold: u64,
    /// Why the clock could not be remembered: the next start knows less of it.
    pub unremembered: Option<String>,
}

/// A key whose file is still there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailedDestruction {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The day.
    pub day: Day,
    /// How long after its end.
    pub late: Duration,
    /// What the file system says.
    pub why: String,
}

/// One key, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyStatus {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The day.
    pub day: Day,
    /// When it dies, seconds since the Unix epoch.
    pub dies: u64,
    /// How long it is overdue.
    pub late: Duration,
}

/// Why something was not sealed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SealError {
    /// The tenant keeps nothing of class `ip`.
    #[error("this tenant's addresses are not kept")]
    NotKept,
    /// It is of a day that is over, and whose key is not there.
    #[error("the key of {0} is not there, and none is made for a day that is over")]
    DayOver(Day),
    /// There is no key to seal with.
    #[error("nothing can be sealed: {0}")]
    Failed(String),
}

/// Why something was not opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Its key is no more.
    #[error("its key, of {day}, is no more since {died} or earlier: it cannot be read by anybody")]
    KeyGone {
        /// The day of the key.
        day: Day,
        /// The last day on which it may have been there.
        died: Day,
    },
    /// It is not as it was sealed, or another record's.
    #[error("it is damaged, or does not belong to this record")]
    Damaged,
}

impl Vault {
    /// Opens the keys: reads those that there are, and destroys those whose end has come before it returns.
    ///
    /// # Errors
    /// No directory, no locked memory, a long-lived key that is damaged, another process with these keys.
    pub fn open(options: VaultOptions, platform: Arc<dyn Platform>) -> Result<Arc<Vault>, VaultError> {
        let mut warnings = Vec::new();
        let (long_directory, is_first) = LongKeys::open(&options.state_directory)?;
        let directory = KeyDirectory::choose(&options, &*platform, &mut warnings)?;
        let now = platform.moment();
        let mut clock_file = ClockFile::open(&options.state_directory)?;
        let clock = start_clock(&clock_file, is_first, now, &mut warnings);
        let newest_key = clock_file.says.and_then(|says| says.newest_key);
        let mut inner = Inner::new(options.ip_retention_days, clock, newest_key);
        inner.ring.configure(options.ip_retention_days, options.tenants, now);
        if let Some(directory) = &directory {
            // Before anything that a full disk or a damaged file may refuse.
            adopt(directory, &*platform, &mut inner, now, &mut warnings)?;
        }
        let signer = long_directory.signing_key(&*platform)?;
        let verifier = Signer::new(signer.bytes()).verifier();
        warnings.extend(inner.lost_keys(now));
        clock_file.remember(inner.says(now)).map_err(|why| files::at(&clock_file.path, why))?;
        let vault = Vault {
            platform,
            directory,
            long_directory,
            warnings,
            signer,
            verifier,
            next_look: AtomicU64::new(0),
            inner: Mutex::new(inner),
            clock_file: Mutex::new(clock_file),
            making: Mutex::new(()),
            making_long: Mutex::new(()),
            destroying: Mutex::new(()),
        };
        drop(vault.current());
        Ok(Arc::new(vault))
    }

    /// What the start has to say to people.
    pub fn warnings(&self) -> &[VaultWarning] {
        &self.warnings
    }

    /// Where the files of the keys of the day are; `None` where they are in locked memory alone.
    pub fn keys_directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(KeyDirectory::path)
    }

    /// The retentions of a new configuration. Keys that have to die earlier now are used by nobody when it returns; a
    /// file on a disk is destroyed by the next [`Vault::sweep`].
    pub fn configure(&self, ip_retention_days: u8, tenants: Vec<(Arc<str>, u8)>) {
        self.lock().ring.configure(ip_retention_days, tenants, self.platform.moment());
        drop(self.current());
    }

    /// The days for which a tenant keeps class `ip`.
    pub fn ip_retention_days(&self, tenant: &str) -> u8 {
        self.lock().ring.retention_days(tenant)
    }

    /// Seals something of class `ip` of the record `id` under the tenant's key of today.
    ///
    /// # Errors
    /// The tenant keeps no addresses, or there is no key.
    pub fn seal(&self, tenant: &str, id: &[u8; 16], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.seal_under(tenant, None, id, plaintext)
    }

    /// Seals something of class `ip` that was so on `day`, under the key of that day: it lives no longer for having
    /// waited to be written.
    ///
    /// # Errors
    /// As for [`Vault::seal`], and the day is over and its key not there.
    pub fn seal_of(&self, tenant: &str, day: Day, id: &[u8; 16], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.seal_under(tenant, Some(day), id, plaintext)
    }

    fn seal_under(&self, tenant: &str, day: Option<Day>, id: &[u8; 16], text: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce = self.nonce();
        let sealed = self.with_key(tenant, day, |day, key| {
            let header = Header { class: Class::Ip, tenant, day, key: seal::key_id(key) };
            header.seal(key, nonce, id, text)
        });
        sealed?.ok_or_else(too_long)
    }

    /// Opens something of class `ip`.
    ///
    /// # Errors
    /// Its key is no more, or it is not what was sealed for this record.
    pub fn open_sealed(&self, sealed: &[u8], id: &[u8; 16]) -> Result<Plaintext, OpenError> {
        let header = Header::read(sealed).filter(|header| header.class == Class::Ip).ok_or(OpenError::Damaged)?;
        let (inner, now) = self.current();
        let name = KeyName { tenant: Arc::from(header.tenant), day: header.day };
        let cell = inner.cells.get(&name).filter(|cell| seal::key_id(cell.bytes()) == header.key);
        let Some(cell) = cell else {
            let last = Day(header.day.0.saturating_add(u32::from(limits::IP_RETENTION_DAYS_MAX)));
            return Err(OpenError::KeyGone { day: header.day, died: last.min(Day::of(now.unix_seconds)) });
        };
        seal::open(cell.bytes(), sealed, id).ok_or(OpenError::Damaged)
    }

    /// Makes the tenant's key of today, if it is not there: what happens today can be sealed under it tomorrow.
    pub fn prepare(&self, tenant: &str) {
        // Where there is none to be had, sealing says why.
        let _ = self.with_key(tenant, None, |_, _| ());
    }

    /// What an address is found by today; `None` where the tenant keeps no addresses or there is no key.
    pub fn index(&self, tenant: &str, ip: Pii<IpAddr>) -> Option<[u8; 16]> {
        self.with_key(tenant, None, |_, key| pseudonym::index(key, &ip)).ok()
    }

    /// What an address of that day is found by; `None` where the tenant keeps no addresses or there is no key.
    pub fn index_of(&self, tenant: &str, day: Day, ip: Pii<IpAddr>) -> Option<[u8; 16]> {
        self.with_key(tenant, Some(day), |_, key| pseudonym::index(key, &ip)).ok()
    }

    /// What an address is found by under every key that lives, by tenant and day.
    pub fn indexes(&self, ip: Pii<IpAddr>) -> Vec<(Arc<str>, Day, [u8; 16])> {
        let (inner, _) = self.current();
        let keys = inner.cells.iter().map(|(name, cell)| (name, cell.bytes()));
        keys.map(|(name, key)| (name.tenant.clone(), name.day, pseudonym::index(key, &ip))).collect()
    }

    /// By what an address is named in a log today; `None` as for [`Vault::index`]. Whoever logs never waits for a disk:
    /// where keys lie on one, the first of a day are without a name until [`Vault::sweep`] has made the key.
    pub fn pseudonym(&self, tenant: &str, ip: Pii<IpAddr>) -> Option<String> {
        let named = |key: &[u8; 32]| pseudonym::address(key, &ip);
        if !self.is_on_disk() {
            return self.with_key(tenant, None, |_, key| named(key)).ok();
        }
        let (mut inner, now) = self.current();
        match inner.ring.today(tenant, now) {
            Today::Use(name) => inner.key(&name).ok().map(named),
            Today::Create(name, _) => {
                inner.wanted.insert(name.tenant);
                None
            }
            _ => None,
        }
    }

    /// Seals something of another class of the record `id` under the tenant's long-lived key.
    ///
    /// # Errors
    /// There is no key, or the class is `ip`.
    pub fn seal_long(&self, tenant: &str, class: Class, id: &[u8; 16], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        if class == Class::Ip {
            return Err(SealError::Failed("class ip is sealed under keys of the day alone".to_owned()));
        }
        let nonce = self.nonce();
        let sealed = self.with_long(tenant, |key| {
            let header = Header { class, tenant, day: Day::default(), key: seal::key_id(key) };
            header.seal(key, nonce, id, plaintext)
        });
        sealed?.ok_or_else(too_long)
    }

    /// Opens what [`Vault::seal_long`] sealed.
    ///
    /// # Errors
    /// Its key is no more, or it is not what was sealed for this record and class.
    pub fn open_long(&self, sealed: &[u8], class: Class, id: &[u8; 16]) -> Result<Plaintext, OpenError> {
        let header = Header::read(sealed).filter(|header| header.class == class).ok_or(OpenError::Damaged)?;
        let opened = self.with_long(header.tenant, |key| {
            if seal::key_id(key) != header.key {
                return Err(OpenError::KeyGone { day: header.day, died: Day::of(self.platform.moment().unix_seconds) });
            }
            seal::open(key, sealed, id).ok_or(OpenError::Damaged)
        });
        opened.unwrap_or(Err(OpenError::Damaged))
    }

    /// By what a user is named in the month of a moment.
    ///
    /// # Errors
    /// There is no long-lived key.
    pub fn user_pseudonym(
        &self,
        tenant: &str,
        user: &Pii<Arc<[u8]>>,
        purpose: pseudonym::Purpose,
        unix_seconds: u64,
    ) -> Result<String, SealError> {
        self.with_long(tenant, |key| pseudonym::user(key, user, purpose, Day::of(unix_seconds)))
    }

    /// This node's signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        Signer::new(self.signer.bytes()).sign(message)
    }

    /// What verifies [`Vault::sign`].
    pub fn verifying_key(&self) -> Verifier {
        self.verifier
    }

    /// Destroys every key whose end has come, its file included, and makes those that were asked for; tells of all that
    /// were destroyed since it was last called. Waits for the disk.
    pub fn sweep(&self) -> Destroyed {
        let failed = self.destroy_files();
        let wanted = std::mem::take(&mut self.lock().wanted);
        // Where that fails they are asked for again.
        wanted.iter().for_each(|tenant| drop(self.make(tenant)));
        let unremembered = self.remember().err().map(|why| why.to_string());
        let (mut inner, _) = self.current();
        let (keys, untold) = (std::mem::take(&mut inner.destroyed), std::mem::take(&mut inner.untold));
        Destroyed { keys, failed, untold, unremembered }
    }

    /// Until when classes other than `ip` may be swept now.
    pub fn horizon(&self) -> Horizon {
        let mut inner = self.lock();
        let now = self.platform.moment();
        inner.clock.pass(now);
        inner.clock.horizon(now)
    }

    /// An operator says that the wall clock is right: what was held back since it is ahead may be swept.
    ///
    /// # Errors
    /// That could not be written down: it holds until the next start.
    pub fn confirm_clock(&self) -> std::io::Result<()> {
        self.lock().clock.confirm(self.platform.moment());
        self.remember()
    }

    /// For workers: lets no packet pass an overdue key.
    pub fn gate(self: &Arc<Self>) -> Gate {
        Gate::new(self.clone())
    }

    /// Every key of the day that there is, overdue ones whose files could not be destroyed among them.
    pub fn status(&self) -> Vec<KeyStatus> {
        let rows = self.lock().ring.status(self.platform.moment());
        let row = |Status { name, dies, late }: Status| KeyStatus {
            tenant: name.tenant,
            day: name.day,
            dies: dies.unix_seconds,
            late,
        };
        rows.into_iter().map(row).collect()
    }

    /// The longest that a key was destroyed after its end, or is overdue now, since the start.
    pub fn late_max(&self) -> Duration {
        self.lock().late_max(self.platform.moment())
    }

    /// Both clocks, as the keys are judged by them.
    pub fn clock(&self) -> Moment {
        self.platform.moment()
    }

    /// What [`Gate`] does when the time has come.
    fn look(&self) {
        drop(self.current());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        locked(&self.inner)
    }

    fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        self.platform.random(&mut nonce);
        nonce
    }

    /// Whether the keys' files may take as long as a disk does.
    fn is_on_disk(&self) -> bool {
        self.directory.as_ref().is_some_and(|directory| !directory.is_memory())
    }

    /// What is in memory, and the moment that it is of: no key is among it whose end has come. Files of such keys are
    /// destroyed first where that waits for no disk.
    fn current(&self) -> (MutexGuard<'_, Inner>, Moment) {
        let mut inner = self.lock();
        let mut now = self.platform.moment();
        if !inner.doom(now).is_empty() && !self.is_on_disk() {
            drop(inner);
            let _ = self.destroy_files();
            inner = self.lock();
            now = self.platform.moment();
        }
        let is_all_gone = inner.doom(now).is_empty();
        let next = inner.ring.next(now).unwrap_or(u64::MAX);
        let retry = now.unix_seconds.saturating_add(limits::KEY_DESTRUCTION_RETRY.as_secs());
        self.next_look.store(if is_all_gone { next } else { next.min(retry) }, Ordering::Relaxed);
        (inner, now)
    }

    /// Destroys the file of every key whose end has come; those that are still there.
    fn destroy_files(&self) -> Vec<FailedDestruction> {
        let _alone = locked(&self.destroying);
        let began = self.platform.moment();
        let due = self.lock().doom(began);
        let mut failed = Vec::new();
        for Due { name, late } in due {
            let gone = self.directory.as_ref().map_or(Ok(()), |directory| directory.destroy(&name));
            let late = late.saturating_add(self.platform.moment().boot.since(began.boot));
            failed.extend(self.lock().settle(Due { name, late }, gone));
        }
        failed
    }

    /// Uses the tenant's key of a day, or of today. Only that of today is made if there is none.
    fn with_key<T>(
        &self,
        tenant: &str,
        day: Option<Day>,
        with: impl FnOnce(Day, &[u8; 32]) -> T,
    ) -> Result<T, SealError> {
        for _ in 0..KEY_TRIES {
            let (inner, now) = self.current();
            if let Some(day) = day.filter(|day| *day != Day::of(now.unix_seconds)) {
                return inner.key_of(tenant, day, now).map(|key| with(day, key));
            }
            match inner.ring.today(tenant, now) {
                Today::Use(name) => return inner.key(&name).map(|key| with(name.day, key)),
                Today::NotKept => return Err(SealError::NotKept),
                Today::Overdue(name) => {
                    return Err(SealError::Failed(format!("the key of {} cannot be destroyed", name.day)));
                }
                Today::Full => {
                    return Err(SealError::Failed(format!("there are {} keys already", limits::DAY_KEYS_MAX)));
                }
                Today::Create(..) => {}
            }
            drop(inner);
            self.make(tenant).map_err(|why| SealError::Failed(why.to_string()))?;
        }
        Err(SealError::Failed("the clock changes while its key is made".to_owned()))
    }

    /// Makes the tenant's key of today, unless there is one. It is used only when its file is safely there, and after
    /// [`Vault::current`] has looked at its end.
    fn make(&self, tenant: &str) -> std::io::Result<()> {
        let _alone = locked(&self.making);
        let today = self.lock().ring.today(tenant, self.platform.moment());
        let Today::Create(name, dies) = today else { return Ok(()) };
        let mut key = Zeroizing::new([0; 32]);
        self.platform.random(&mut *key);
        let cell = self.platform.cells().cell(*key)?;
        let written = self.directory.as_ref().map_or(Ok(()), |directory| {
            let file = KeyFile { day: name.day, dies, boot_id: self.platform.boot_id().unwrap_or_default() };
            directory.write(&name, &file, &key)
        });
        let is_there = written.is_ok() && self.lock().publish(&name, dies, cell, self.platform.moment());
        if !is_there {
            self.discard(name);
        }
        written
    }

    /// A key that nobody has used is not left lying; what resists is destroyed as one that is overdue.
    fn discard(&self, name: KeyName) {
        let gone = self.directory.as_ref().map_or(Ok(()), |directory| directory.discard(&name));
        if gone.is_err() {
            let now = self.platform.moment();
            let mut inner = self.lock();
            let latest = inner.clock.latest();
            inner.ring.adopt(name, overdue(now), latest, now);
        }
    }

    /// Uses the tenant's long-lived key, which is made if there is none.
    fn with_long<T>(&self, tenant: &str, with: impl FnOnce(&[u8; 32]) -> T) -> Result<T, SealError> {
        if let Some(cell) = self.lock().long.get(tenant) {
            return Ok(with(cell.bytes()));
        }
        let _alone = locked(&self.making_long);
        if !self.lock().long.contains_key(tenant) {
            let found = self.long_directory.tenant_key(tenant, &*self.platform);
            let cell = found.map_err(|why| SealError::Failed(why.to_string()))?;
            self.lock().long.insert(Arc::from(tenant), cell);
        }
        let inner = self.lock();
        inner.long.get(tenant).map(|cell| with(cell.bytes())).ok_or_else(|| SealError::Failed("no key".to_owned()))
    }

    /// Writes down what the next start has to know, when that has changed by an hour.
    fn remember(&self) -> std::io::Result<()> {
        let mut clock_file = locked(&self.clock_file);
        let says = self.lock().says(self.platform.moment());
        clock_file.remember(says)
    }
}

/// A stop that could be foreseen: the next start knows the clock to the second.
impl Drop for Vault {
    fn drop(&mut self) {
        let now = self.platform.moment();
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let clock_file = self.clock_file.get_mut().unwrap_or_else(PoisonError::into_inner);
        let says = inner.says(now);
        if clock_file.says != Some(says) {
            let _ = clock_file.write(says);
        }
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

/// Takes over the keys of a former run, their names and ends first. Those that are due are destroyed by these alone,
/// whatever the kernel says of memory for the others: a start that fails keeps nothing longer. What cannot be believed
/// is due.
fn adopt(
    directory: &KeyDirectory,
    platform: &dyn Platform,
    inner: &mut Inner,
    now: Moment,
    warnings: &mut Vec<VaultWarning>,
) -> Result<(), VaultError> {
    let (mut names, mut unread) = (Vec::new(), Vec::new());
    for name in directory.names()? {
        let stored = match directory.read(&name) {
            Ok(Some((file, _))) => file.stored(directory.is_memory(), platform.boot_id()),
            Ok(None) => {
                warnings.push(VaultWarning::DamagedKey { file: name.file() });
                overdue(now)
            }
            // By its name it may be due all the same.
            Err(why) => {
                unread.push((name.clone(), why));
                Stored { unix_seconds: u64::MAX, boot: None }
            }
        };
        inner.ring.adopt(name.clone(), stored, inner.clock.latest(), now);
        names.push(name);
    }
    for due in inner.doom(now) {
        let gone = directory.destroy(&due.name);
        inner.settle(due, gone);
    }
    let live = |name: &KeyName| inner.ring.is_live(name, now);
    if let Some((_, why)) = unread.into_iter().find(|(name, _)| live(name)) {
        return Err(why);
    }
    names.retain(live);
    for name in names {
        if let Some((_, key)) = directory.read(&name)? {
            inner.cells.insert(name, platform.cells().cell(*key).map_err(VaultError::Memory)?);
        }
    }
    Ok(())
}

/// The end of a key that must not be used.
const fn overdue(now: Moment) -> Stored {
    Stored { unix_seconds: 0, boot: Some(now.boot) }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of the clock, and what is strange about it.
fn start_clock(file: &ClockFile, is_first: bool, now: Moment, warnings: &mut Vec<VaultWarning>) -> Clock {
    let remembered = file.says.map(|says| says.remembered);
    if remembered.is_none() && !is_first {
        warnings.push(VaultWarning::ClockLost { file: file.path.clone() });
        return Clock::start(Some(clock::Remembered::LOST), now);
    }
    let behind = remembered.map_or(0, |remembered| remembered.latest.saturating_sub(now.unix_seconds));
    if behind >= CLOCK_BEHIND_SECONDS {
        warnings.push(VaultWarning::ClockBehind { by: Duration::from_secs(behind) });
    }
    Clock::start(remembered, now)
}

fn too_long() -> SealError {
    SealError::Failed("it is too long".to_owned())
}
