//! The keys, and all that is done with them.
//!
//! Class `ip` is sealed under the key of its tenant and day, which is random, lies in locked memory and in a directory
//! that outlives a restart of the service and not of the machine, and dies as [`sluice_privacy::keyring`] says.
//! Everything else that is sealed is under the tenant's long-lived key, which lies in the state directory.

mod clock_file;
mod files;
mod gate;
mod key_file;
mod options;

pub use files::{Destroyer, Overwriter, destroy_all};
pub use gate::Gate;
pub use options::{Keys, Platform, VaultError, VaultOptions, VaultWarning};

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_base::memory::KeyCell;
use sluice_base::{Pii, limits};
use sluice_crypto::{NONCE_BYTES, Plaintext, Signer, Verifier, Zeroizing};
use sluice_privacy::keyring::{Deadline, Status, Stored, Today};
use sluice_privacy::seal::{self, Header};
use sluice_privacy::{Class, Clock, Day, Horizon, KeyName, KeyRing, Moment, clock, pseudonym};

use clock_file::{ClockFile, Says};
use files::{KeyDirectory, LongKeys};
use key_file::KeyFile;

/// The keys of this node. Shared by both threads of the record plane, and by workers through [`Gate`] alone.
pub struct Vault {
    platform: Arc<dyn Platform>,
    directory: Option<KeyDirectory>,
    long_directory: LongKeys,
    warnings: Vec<VaultWarning>,
    signer: Box<dyn KeyCell>,
    verifier: Verifier,
    /// The wall clock's second from which [`Gate`] looks closer.
    next_look: AtomicU64,
    inner: Mutex<Inner>,
}

/// A clock that is so far behind what it was has not been corrected, but set.
const CLOCK_BEHIND_SECONDS: u64 = 3600;

struct Inner {
    ring: KeyRing,
    clock: Clock,
    clock_file: ClockFile,
    newest_key: Option<Day>,
    cells: BTreeMap<KeyName, Box<dyn KeyCell>>,
    long: HashMap<Arc<str>, Box<dyn KeyCell>>,
    /// What was destroyed since it was last asked for.
    destroyed: Vec<DestroyedKey>,
    untold: u64,
    late_seconds_max: u64,
}

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
        let clock_file = ClockFile::open(&options.state_directory)?;
        let clock = start_clock(&clock_file, is_first, now, &mut warnings);
        let mut inner = Inner {
            ring: KeyRing::new(options.ip_retention_days),
            newest_key: clock_file.says.and_then(|says| says.newest_key),
            clock,
            clock_file,
            cells: BTreeMap::new(),
            long: HashMap::new(),
            destroyed: Vec::new(),
            untold: 0,
            late_seconds_max: 0,
        };
        inner.ring.configure(options.ip_retention_days, options.tenants, now);
        if let Some(directory) = &directory {
            adopt(directory, &*platform, &mut inner, now, &mut warnings)?;
        }
        // Before anything that a full disk or a damaged file may refuse: a start that fails keeps nothing longer.
        inner.destroy_due(directory.as_ref(), now);
        let signer = long_directory.signing_key(&*platform)?;
        let verifier = Signer::new(signer.bytes()).verifier();
        warnings.extend(inner.lost_keys(now));
        let path = options.state_directory.join("clock");
        inner.remember(now).map_err(|why| VaultError::File { path, why })?;
        let vault = Vault {
            platform,
            directory,
            long_directory,
            warnings,
            signer,
            verifier,
            next_look: AtomicU64::new(0),
            inner: Mutex::new(inner),
        };
        let _ = vault.sweep_locked(&mut vault.lock(), now);
        Ok(Arc::new(vault))
    }

    /// What the start has to say to people.
    pub fn warnings(&self) -> &[VaultWarning] {
        &self.warnings
    }

    /// The retentions of a new configuration. Keys that have to die earlier now do so before it returns.
    pub fn configure(&self, ip_retention_days: u8, tenants: Vec<(Arc<str>, u8)>) {
        let mut inner = self.lock();
        let now = self.platform.moment();
        inner.ring.configure(ip_retention_days, tenants, now);
        let _ = self.sweep_locked(&mut inner, now);
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
        self.seal_of(tenant, Day::of(self.platform.moment().unix_seconds), id, plaintext)
    }

    /// Seals something of class `ip` that was so on `day`, under the key of that day: it lives no longer for having
    /// waited to be written.
    ///
    /// # Errors
    /// As for [`Vault::seal`], and the day is over and its key not there.
    pub fn seal_of(&self, tenant: &str, day: Day, id: &[u8; 16], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut inner = self.lock();
        let (name, nonce) = (self.of_day(&mut inner, tenant, day)?, self.nonce());
        let key = inner.key(&name)?;
        let header = Header { class: Class::Ip, tenant, day: name.day, key: seal::key_id(key) };
        header.seal(key, nonce, id, plaintext).ok_or_else(too_long)
    }

    /// Opens something of class `ip`.
    ///
    /// # Errors
    /// Its key is no more, or it is not what was sealed for this record.
    pub fn open_sealed(&self, sealed: &[u8], id: &[u8; 16]) -> Result<Plaintext, OpenError> {
        let header = Header::read(sealed).filter(|header| header.class == Class::Ip).ok_or(OpenError::Damaged)?;
        let mut inner = self.lock();
        let now = self.platform.moment();
        let _ = self.sweep_locked(&mut inner, now);
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
        let _ = self.today(&mut self.lock(), tenant);
    }

    /// What an address is found by today; `None` where the tenant keeps no addresses or there is no key.
    pub fn index(&self, tenant: &str, ip: Pii<IpAddr>) -> Option<[u8; 16]> {
        self.index_of(tenant, Day::of(self.platform.moment().unix_seconds), ip)
    }

    /// What an address of that day is found by; `None` where the tenant keeps no addresses or there is no key.
    pub fn index_of(&self, tenant: &str, day: Day, ip: Pii<IpAddr>) -> Option<[u8; 16]> {
        let mut inner = self.lock();
        let name = self.of_day(&mut inner, tenant, day).ok()?;
        inner.key(&name).ok().map(|key| pseudonym::index(key, &ip))
    }

    /// What an address is found by under every key that lives, by tenant and day.
    pub fn indexes(&self, ip: Pii<IpAddr>) -> Vec<(Arc<str>, Day, [u8; 16])> {
        let mut inner = self.lock();
        let _ = self.sweep_locked(&mut inner, self.platform.moment());
        let keys = inner.cells.iter().map(|(name, cell)| (name, cell.bytes()));
        keys.map(|(name, key)| (name.tenant.clone(), name.day, pseudonym::index(key, &ip))).collect()
    }

    /// By what an address is named in a log today; `None` as for [`Vault::index`].
    pub fn pseudonym(&self, tenant: &str, ip: Pii<IpAddr>) -> Option<String> {
        let mut inner = self.lock();
        let name = self.today(&mut inner, tenant).ok()?;
        inner.key(&name).ok().map(|key| pseudonym::address(key, &ip))
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
        let mut inner = self.lock();
        let key = self.long(&mut inner, tenant)?;
        let header = Header { class, tenant, day: Day::default(), key: seal::key_id(key) };
        header.seal(key, nonce, id, plaintext).ok_or_else(too_long)
    }

    /// Opens what [`Vault::seal_long`] sealed.
    ///
    /// # Errors
    /// Its key is no more, or it is not what was sealed for this record and class.
    pub fn open_long(&self, sealed: &[u8], class: Class, id: &[u8; 16]) -> Result<Plaintext, OpenError> {
        let header = Header::read(sealed).filter(|header| header.class == class).ok_or(OpenError::Damaged)?;
        let mut inner = self.lock();
        let key = self.long(&mut inner, header.tenant).map_err(|_| OpenError::Damaged)?;
        if seal::key_id(key) != header.key {
            return Err(OpenError::KeyGone { day: header.day, died: Day::of(self.platform.moment().unix_seconds) });
        }
        seal::open(key, sealed, id).ok_or(OpenError::Damaged)
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
        let mut inner = self.lock();
        let key = self.long(&mut inner, tenant)?;
        Ok(pseudonym::user(key, user, purpose, Day::of(unix_seconds)))
    }

    /// This node's signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        Signer::new(self.signer.bytes()).sign(message)
    }

    /// What verifies [`Vault::sign`].
    pub fn verifying_key(&self) -> Verifier {
        self.verifier
    }

    /// Destroys every key whose end has come; tells of all that were destroyed since it was last called.
    pub fn sweep(&self) -> Destroyed {
        let mut inner = self.lock();
        let now = self.platform.moment();
        let failed = self.sweep_locked(&mut inner, now);
        let unremembered = inner.remember(now).err().map(|why| why.to_string());
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
        let mut inner = self.lock();
        let now = self.platform.moment();
        inner.clock.confirm(now);
        inner.remember(now)
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
        let inner = self.lock();
        let overdue = inner.ring.status(self.platform.moment()).into_iter().map(|key| key.late).max();
        overdue.unwrap_or_default().max(Duration::from_secs(inner.late_seconds_max))
    }

    /// Both clocks, as the keys are judged by them.
    pub fn clock(&self) -> Moment {
        self.platform.moment()
    }

    /// What [`Gate`] does when the time has come.
    fn look(&self) {
        let mut inner = self.lock();
        let _ = self.sweep_locked(&mut inner, self.platform.moment());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        self.platform.random(&mut nonce);
        nonce
    }

    /// The key of a day, after all that are overdue are gone. Only that of today is made if need be.
    fn of_day(&self, inner: &mut Inner, tenant: &str, day: Day) -> Result<KeyName, SealError> {
        let now = self.platform.moment();
        if Day::of(now.unix_seconds) == day {
            return self.today(inner, tenant);
        }
        let _ = self.sweep_locked(inner, now);
        if inner.ring.retention_days(tenant) == 0 {
            return Err(SealError::NotKept);
        }
        let name = KeyName { tenant: Arc::from(tenant), day };
        if inner.ring.is_live(&name, now) { Ok(name) } else { Err(SealError::DayOver(day)) }
    }

    /// The key of today, made if need be, after all that are overdue are gone.
    fn today(&self, inner: &mut Inner, tenant: &str) -> Result<KeyName, SealError> {
        let now = self.platform.moment();
        let _ = self.sweep_locked(inner, now);
        match inner.ring.today(tenant, now) {
            Today::Use(name) => Ok(name),
            Today::NotKept => Err(SealError::NotKept),
            Today::Overdue(name) => Err(SealError::Failed(format!("the key of {} cannot be destroyed", name.day))),
            Today::Full => Err(SealError::Failed(format!("there are {} keys already", limits::DAY_KEYS_MAX))),
            Today::Create(name, dies) => {
                let cell = self.create(&name, dies).map_err(|why| SealError::Failed(why.to_string()))?;
                inner.cells.insert(name.clone(), cell);
                inner.ring.created(name.clone(), dies);
                inner.newest_key = inner.newest_key.max(Some(name.day));
                // The next start would only not notice that the directory is lost.
                let _ = inner.remember(now);
                self.look_again(inner, now);
                Ok(name)
            }
        }
    }

    fn create(&self, name: &KeyName, dies: Deadline) -> std::io::Result<Box<dyn KeyCell>> {
        let mut key = Zeroizing::new([0; 32]);
        self.platform.random(&mut *key);
        if let Some(directory) = &self.directory {
            let file = KeyFile { day: name.day, dies, boot_id: self.platform.boot_id().unwrap_or_default() };
            directory.write(name, &file, &key)?;
        }
        self.platform.cells().cell(*key)
    }

    /// Destroys what is due, keeps what was destroyed to be told, says what could not be.
    fn sweep_locked(&self, inner: &mut Inner, now: Moment) -> Vec<FailedDestruction> {
        let failed = inner.destroy_due(self.directory.as_ref(), now);
        self.look_again(inner, now);
        if !failed.is_empty() {
            let retry = now.unix_seconds.saturating_add(limits::KEY_DESTRUCTION_RETRY.as_secs());
            self.next_look.fetch_min(retry, Ordering::Relaxed);
        }
        failed
    }

    fn look_again(&self, inner: &Inner, now: Moment) {
        self.next_look.store(inner.ring.next(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The tenant's long-lived key, made if there is none.
    fn long<'i>(&self, inner: &'i mut Inner, tenant: &str) -> Result<&'i [u8; 32], SealError> {
        if !inner.long.contains_key(tenant) {
            let found = self.long_directory.tenant_key(tenant, &*self.platform);
            let cell = found.map_err(|why| SealError::Failed(why.to_string()))?;
            inner.long.insert(Arc::from(tenant), cell);
        }
        inner.long.get(tenant).map(|cell| cell.bytes()).ok_or_else(|| SealError::Failed("no key".to_owned()))
    }
}

impl Inner {
    fn key(&self, name: &KeyName) -> Result<&[u8; 32], SealError> {
        let cell = self.cells.get(name);
        cell.map(|cell| cell.bytes()).ok_or_else(|| SealError::Failed(format!("the key of {} is not there", name.day)))
    }

    /// Writes down what the next start has to know, when that has changed by an hour.
    fn remember(&mut self, now: Moment) -> std::io::Result<()> {
        self.clock.pass(now);
        let says = self.says();
        if self.clock_file.is_fresh(says) { Ok(()) } else { self.clock_file.write(says) }
    }

    fn says(&self) -> Says {
        Says { remembered: self.clock.remembered(), newest_key: self.newest_key }
    }

    /// There is no key, and should be one.
    fn lost_keys(&self, now: Moment) -> Option<VaultWarning> {
        let newest = self.newest_key.filter(|_| self.cells.is_empty())?;
        let end = Day(newest.0.saturating_add(u32::from(limits::IP_RETENTION_DAYS_MAX)));
        (Day::of(now.unix_seconds) < end).then_some(VaultWarning::KeysLost { newest })
    }

    /// Destroys every key whose end has come; those whose files are still there.
    fn destroy_due(&mut self, directory: Option<&KeyDirectory>, now: Moment) -> Vec<FailedDestruction> {
        let mut failed = Vec::new();
        for due in self.ring.due(now) {
            // The bytes in memory first: nobody refuses that.
            self.cells.remove(&due.name);
            let gone = directory.map_or(Ok(()), |directory| directory.destroy(&due.name));
            self.late_seconds_max = self.late_seconds_max.max(due.late.as_secs());
            let (tenant, day) = (due.name.tenant.clone(), due.name.day);
            match gone {
                Ok(()) => {
                    self.ring.destroyed(&due.name);
                    self.tell(DestroyedKey { tenant, day, late: due.late });
                }
                Err(why) => failed.push(FailedDestruction { tenant, day, late: due.late, why: why.to_string() }),
            }
        }
        failed
    }

    fn tell(&mut self, key: DestroyedKey) {
        if self.destroyed.len() < limits::DESTROYED_KEYS_MAX {
            self.destroyed.push(key);
        } else {
            self.untold += 1;
        }
    }
}

/// A stop that could be foreseen: the next start knows the clock to the second.
impl Drop for Vault {
    fn drop(&mut self) {
        let now = self.platform.moment();
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        inner.clock.pass(now);
        let says = inner.says();
        if inner.clock_file.says != Some(says) {
            let _ = inner.clock_file.write(says);
        }
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

/// Takes over the keys of a former run. What cannot be believed is taken over as overdue.
fn adopt(
    directory: &KeyDirectory,
    platform: &dyn Platform,
    inner: &mut Inner,
    now: Moment,
    warnings: &mut Vec<VaultWarning>,
) -> Result<(), VaultError> {
    for (name, read) in directory.keys()? {
        let stored = match read {
            Some((file, key)) => {
                let cell = platform.cells().cell(*key).map_err(VaultError::Memory)?;
                inner.cells.insert(name.clone(), cell);
                file.stored(directory.is_memory(), platform.boot_id())
            }
            None => {
                warnings.push(VaultWarning::DamagedKey { file: name.file() });
                Stored { unix_seconds: 0, boot: Some(now.boot) }
            }
        };
        inner.ring.adopt(name, stored, inner.clock.latest(), now);
    }
    Ok(())
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
