//! The keys of the day, over files and a machine whose clocks are the test's.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sluice_base::Pii;
use sluice_base::memory::{KeyCell, KeyCells};
use sluice_net::LockedMemory;
use sluice_privacy::{Class, Moment, pseudonym};
use sluice_record::testing::{Folder, Machine};
use sluice_record::vault::{
    Destroyer, Keys, OpenError, Overwriter, Platform, SealError, Vault, VaultError, VaultOptions, VaultWarning,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const ID: [u8; 16] = [5; 16];

fn options(folder: &Folder) -> VaultOptions {
    let state = folder.join("state");
    fs::create_dir_all(&state).unwrap();
    VaultOptions::new(state, Some(folder.join("keys")))
}

fn open(folder: &Folder, machine: &Arc<Machine>) -> Arc<Vault> {
    Vault::open(options(folder), machine.clone()).unwrap()
}

fn start(name: &str) -> (Folder, Arc<Machine>, Arc<Vault>) {
    let (folder, machine) = (Folder::new(name), Arc::new(Machine::new(1)));
    let vault = open(&folder, &machine);
    (folder, machine, vault)
}

fn key_files(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.join("keys")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".key"));
    names.sort();
    names
}

fn ip(text: &str) -> Pii<IpAddr> {
    Pii::new(text.parse().unwrap())
}

#[test]
fn what_is_sealed_opens_for_seven_days_and_then_never() {
    let (folder, machine, vault) = start("seven");
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    assert_eq!(key_files(&folder), ["2026-11-28.clinic.key"]);
    machine.pass(6 * DAY + 11 * HOUR);
    assert_eq!(*vault.open_sealed(&sealed, &ID).unwrap(), b"192.0.2.7");
    machine.pass(HOUR);
    assert!(matches!(vault.open_sealed(&sealed, &ID), Err(OpenError::KeyGone { .. })));
    assert!(key_files(&folder).is_empty());
    let told = vault.sweep().keys;
    assert_eq!((told.len(), told[0].late), (1, Duration::ZERO));
}

#[test]
fn a_restart_of_the_service_keeps_the_keys_and_the_index_under_them() {
    let (folder, machine, vault) = start("restart");
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    let index = vault.index("clinic", ip("192.0.2.7")).unwrap();
    drop(vault);
    machine.pass(DAY);
    let vault = open(&folder, &machine);
    assert_eq!(*vault.open_sealed(&sealed, &ID).unwrap(), b"192.0.2.7");
    assert!(vault.indexes(ip("192.0.2.7")).iter().any(|(tenant, _, found)| &**tenant == "clinic" && *found == index));
}

#[test]
fn a_tenant_that_keeps_no_addresses_has_none_sealed() {
    let (folder, machine) = (Folder::new("none"), Arc::new(Machine::new(1)));
    let options = VaultOptions { tenants: vec![("school".into(), 0)], ..options(&folder) };
    let vault = Vault::open(options, machine).unwrap();
    assert!(matches!(vault.seal("school", &ID, b"192.0.2.7"), Err(SealError::NotKept)));
    assert!(vault.index("school", ip("192.0.2.7")).is_none() && vault.pseudonym("school", ip("192.0.2.7")).is_none());
    assert!(key_files(&folder).is_empty());
}

#[test]
fn the_gate_destroys_before_it_returns() {
    let (folder, machine, vault) = start("gate");
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    let gate = vault.gate();
    machine.pass(6 * DAY + 12 * HOUR - Duration::from_secs(1));
    gate.check(vault.clock().unix_seconds);
    assert_eq!(key_files(&folder).len(), 1);
    machine.pass(Duration::from_secs(1));
    gate.check(vault.clock().unix_seconds);
    assert!(key_files(&folder).is_empty());
}

#[test]
fn a_directory_that_is_not_in_memory_gets_no_key() {
    let (folder, machine) = (Folder::new("disk"), Arc::new(Machine::new(1)));
    machine.is_tmpfs.store(false, Relaxed);
    let vault = open(&folder, &machine);
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    assert_eq!(*vault.open_sealed(&sealed, &ID).unwrap(), b"192.0.2.7");
    assert!(key_files(&folder).is_empty());
    assert_eq!(vault.warnings(), [VaultWarning::MemoryOnly { directory: folder.join("keys") }]);
}

#[test]
fn a_directory_that_may_be_swapped_out_gets_no_key_and_loses_what_it_had() {
    let (folder, machine, vault) = start("swap");
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    drop(vault);
    machine.has_swap.store(true, Relaxed);
    machine.is_never_swapped.store(true, Relaxed);
    let vault = open(&folder, &machine);
    assert_eq!((vault.warnings(), key_files(&folder).len()), (&[VaultWarning::Swap][..], 1));
    assert_eq!(vault.keys_directory(), Some(folder.join("keys").as_path()));
    drop(vault);
    machine.is_never_swapped.store(false, Relaxed);
    let vault = open(&folder, &machine);
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    assert!(key_files(&folder).is_empty() && vault.keys_directory().is_none());
    let swapped = |warning: &&VaultWarning| matches!(warning, VaultWarning::Swapped { .. });
    let said = vault.warnings().iter().find(swapped).unwrap().to_string();
    for word in ["noswap", "MemorySwapMax=0", "locked memory alone", "keys"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn two_processes_do_not_share_keys() {
    let (folder, machine, _vault) = start("two");
    let second = Vault::open(options(&folder), machine);
    assert!(matches!(second, Err(VaultError::InUse(_))));
}

#[test]
fn long_lived_keys_seal_what_outlives_the_address_and_nothing_of_class_ip() {
    let (folder, machine, vault) = start("long");
    let sealed = vault.seal_long("clinic", Class::AccessAudit, &ID, b"zelda connected").unwrap();
    assert!(vault.seal_long("clinic", Class::Ip, &ID, b"192.0.2.7").is_err());
    let (signature, key) = (vault.sign(b"checkpoint"), vault.verifying_key());
    let zelda = Pii::new(Arc::from(&b"zelda"[..]));
    let name = |vault: &Vault, at| vault.user_pseudonym("clinic", &zelda, pseudonym::Purpose::Records, at).unwrap();
    let before = name(&vault, 1_795_867_200);
    drop(vault);
    machine.pass(30 * DAY);
    let vault = open(&folder, &machine);
    assert_eq!(*vault.open_long(&sealed, Class::AccessAudit, &ID).unwrap(), b"zelda connected");
    assert!(vault.open_long(&sealed, Class::AdminAudit, &ID).is_err());
    assert!(key.verify(b"checkpoint", &signature) && vault.verifying_key() == key);
    assert_eq!(name(&vault, 1_795_867_200), before);
}

#[test]
fn files_of_keys_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, _machine, vault) = start("mode");
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.join("keys")), 0o700);
    assert_eq!(mode(&folder.join("keys/2026-11-28.clinic.key")), 0o600);
    assert_eq!(mode(&folder.join("state/secrets/signing.key")), 0o600);
}

#[test]
fn a_restart_in_the_middle_of_destruction_ends_in_destruction() {
    let (folder, machine, vault) = start("middle");
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    machine.pass(DAY);
    vault.seal("clinic", &ID, b"192.0.2.8").unwrap();
    machine.pass(DAY);
    vault.seal("clinic", &ID, b"192.0.2.9").unwrap();
    drop(vault);
    let file = |day: &str| folder.join(&format!("keys/{day}.clinic.key"));
    // One was overwritten and not unlinked, one was cut, one was never given its name.
    fs::write(file("2026-11-28"), [0; 84]).unwrap();
    let whole = fs::read(file("2026-11-29")).unwrap();
    fs::write(file("2026-11-29"), &whole[..60]).unwrap();
    fs::write(folder.join("keys/2026-12-01.clinic.key.new"), &whole).unwrap();
    let vault = open(&folder, &machine);
    assert_eq!(key_files(&folder), ["2026-11-30.clinic.key"]);
    assert_eq!(fs::read_dir(folder.join("keys")).unwrap().count(), 2, "the key and the lock");
    assert!(matches!(vault.open_sealed(&sealed, &ID), Err(OpenError::KeyGone { .. })));
    let damaged = |warning: &&VaultWarning| matches!(warning, VaultWarning::DamagedKey { .. });
    assert_eq!(vault.warnings().iter().filter(damaged).count(), 2);
}

#[test]
fn a_key_file_that_got_another_ones_name_is_no_key() {
    let (folder, machine, vault) = start("renamed");
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    drop(vault);
    // A later day would let it live for longer, another tenant would see it.
    for name in ["2026-12-01.clinic.key", "2026-11-28.school.key"] {
        fs::copy(folder.join("keys/2026-11-28.clinic.key"), folder.join("keys").join(name)).unwrap();
    }
    let vault = open(&folder, &machine);
    assert_eq!(key_files(&folder), ["2026-11-28.clinic.key"]);
    assert!(vault.open_sealed(&sealed, &ID).is_ok());
}

#[test]
fn a_lost_directory_of_keys_is_told_and_new_keys_are_made() {
    let (folder, machine, vault) = start("lost");
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    drop(vault);
    fs::remove_dir_all(folder.join("keys")).unwrap();
    let vault = open(&folder, &machine);
    assert!(matches!(vault.warnings(), [VaultWarning::KeysLost { .. }]));
    assert!(matches!(vault.open_sealed(&sealed, &ID), Err(OpenError::KeyGone { .. })));
    let again = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    assert!(vault.open_sealed(&again, &ID).is_ok());
}

#[test]
fn a_clock_that_is_set_forward_kills_every_key_and_back_keeps_none_longer() {
    let (folder, machine, vault) = start("steps");
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    machine.set_wall_clock(0);
    let gate = vault.gate();
    machine.pass(6 * DAY + 12 * HOUR - Duration::from_secs(1));
    vault.sweep();
    assert_eq!(key_files(&folder).len(), 1);
    machine.pass(Duration::from_secs(1));
    gate.check(vault.clock().unix_seconds);
    assert!(vault.open_sealed(&sealed, &ID).is_err() && key_files(&folder).is_empty());
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    machine.set_wall_clock(4_070_908_800);
    gate.check(vault.clock().unix_seconds);
    assert!(vault.open_sealed(&sealed, &ID).is_err() && key_files(&folder).is_empty());
    assert_eq!(vault.late_max(), Duration::ZERO);
}

#[test]
fn persistent_keys_outlive_the_machines_stop_and_are_judged_by_the_latest_clock_ever_seen() {
    let (folder, machine) = (Folder::new("persistent"), Arc::new(Machine::new(1)));
    machine.is_tmpfs.store(false, Relaxed);
    let persistent = || VaultOptions { keys: Keys::Persistent, ..options(&folder) };
    let reopen = || Vault::open(persistent(), machine.clone()).unwrap();
    let vault = reopen();
    assert!(matches!(vault.warnings(), [VaultWarning::Persistent { .. }]));
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    drop(vault);
    machine.reboot();
    machine.pass(DAY);
    let vault = reopen();
    assert!(vault.open_sealed(&sealed, &ID).is_ok());
    drop(vault);
    // The battery of the clock is empty.
    machine.reboot();
    machine.set_wall_clock(0);
    let vault = reopen();
    assert!(vault.warnings().iter().any(|warning| matches!(warning, VaultWarning::ClockBehind { .. })));
    assert!(vault.open_sealed(&sealed, &ID).is_ok());
    machine.pass(6 * DAY);
    assert!(vault.open_sealed(&sealed, &ID).is_err(), "5.5 days were left");
}

#[test]
fn keys_of_a_disk_die_when_only_memory_is_wanted() {
    let (folder, machine) = (Folder::new("former"), Arc::new(Machine::new(1)));
    machine.is_tmpfs.store(false, Relaxed);
    let persistent = VaultOptions { keys: Keys::Persistent, ..options(&folder) };
    Vault::open(persistent, machine.clone()).unwrap().seal("clinic", &ID, b"192.0.2.7").unwrap();
    assert_eq!(key_files(&folder).len(), 1);
    open(&folder, &machine);
    assert!(key_files(&folder).is_empty());
}

#[test]
fn a_key_that_cannot_be_destroyed_is_used_no_more_and_told_of_until_it_is_gone() {
    #[derive(Default)]
    struct Refuses(AtomicBool);
    impl Destroyer for Refuses {
        fn destroy(&self, file: &Path) -> std::io::Result<()> {
            if self.0.load(Relaxed) {
                fs::remove_file(file)
            } else {
                Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
            }
        }
    }
    let (folder, machine, destroyer) =
        (Folder::new("refuses"), Arc::new(Machine::new(1)), Arc::new(Refuses::default()));
    let vault =
        Vault::open(VaultOptions { destroyer: destroyer.clone(), ..options(&folder) }, machine.clone()).unwrap();
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    machine.pass(7 * DAY);
    let swept = vault.sweep();
    assert_eq!((swept.keys.len(), swept.failed.len()), (0, 1));
    assert!(vault.open_sealed(&sealed, &ID).is_err(), "its bytes are gone from memory");
    machine.pass(HOUR);
    assert_eq!(vault.late_max(), 13 * HOUR);
    destroyer.0.store(true, Relaxed);
    vault.gate().check(vault.clock().unix_seconds);
    assert!(key_files(&folder).is_empty());
    assert_eq!(vault.sweep().keys[0].late, 13 * HOUR);
}

#[test]
fn other_classes_are_swept_no_further_than_a_day_beyond_what_was_counted() {
    let (folder, machine, vault) = start("horizon");
    let noon = vault.clock().unix_seconds;
    machine.set_wall_clock(noon + 400 * 86_400);
    assert_eq!(vault.horizon().unix_seconds, noon + 86_400);
    drop(vault);
    let vault = open(&folder, &machine);
    assert_eq!(vault.horizon().unix_seconds, noon + 86_400, "another start is no confirmation");
    vault.confirm_clock().unwrap();
    drop(vault);
    let vault = open(&folder, &machine);
    assert_eq!(vault.horizon().held_back, Duration::ZERO);
    drop(vault);
    fs::write(folder.join("state/clock"), b"sluice clo").unwrap();
    let vault = open(&folder, &machine);
    assert!(matches!(vault.warnings(), [VaultWarning::ClockLost { .. }]));
    assert_eq!(vault.horizon().unix_seconds, 86_400, "nothing is deleted that was written since");
}

#[test]
fn a_damaged_long_lived_key_is_an_error_and_not_replaced() {
    let (folder, machine, vault) = start("damaged");
    drop(vault);
    let file = folder.join("state/secrets/signing.key");
    fs::write(&file, [0; 84]).unwrap();
    let why = Vault::open(options(&folder), machine).unwrap_err().to_string();
    assert!(why.contains("signing.key") && why.contains("backup"), "{why}");
}

#[test]
fn a_tenant_that_says_less_has_its_keys_destroyed_earlier() {
    let (folder, machine, vault) = start("less");
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    vault.seal("school", &ID, b"192.0.2.7").unwrap();
    machine.pass(2 * DAY);
    vault.configure(7, vec![("clinic".into(), 1)]);
    assert_eq!(key_files(&folder), ["2026-11-28.school.key"]);
    assert_eq!(vault.late_max(), Duration::ZERO, "it was not promised before");
    vault.configure(0, vec![]);
    assert!(key_files(&folder).is_empty());
}

#[test]
fn the_relay_itself_has_a_key_that_outlives_a_restart_too() {
    let (folder, machine, vault) = start("itself");
    let sealed = vault.seal("", &ID, b"a ban").unwrap();
    drop(vault);
    let vault = open(&folder, &machine);
    assert_eq!(*vault.open_sealed(&sealed, &ID).unwrap(), b"a ban");
    machine.pass(7 * DAY);
    vault.sweep();
    assert!(key_files(&folder).is_empty());
}

#[test]
fn files_of_others_in_the_directory_of_keys_are_left_alone() {
    let (folder, machine, vault) = start("others");
    drop(vault);
    for name in ["server.key", "server.key.new", "2026-11-28.key", "2026-02-30.clinic.key"] {
        fs::write(folder.join("keys").join(name), b"theirs").unwrap();
    }
    open(&folder, &machine);
    assert_eq!(key_files(&folder), ["2026-02-30.clinic.key", "2026-11-28.key", "server.key"]);
    assert!(folder.join("keys/server.key.new").exists());
}

/// A machine that tells of each look at its clocks: the lock of the vault is held then, or soon.
struct Watched(Machine, Mutex<Sender<()>>);

impl Platform for Watched {
    fn moment(&self) -> Moment {
        let _ = self.1.lock().unwrap().send(());
        self.0.moment()
    }
    fn cells(&self) -> &dyn KeyCells {
        self.0.cells()
    }
    fn is_tmpfs(&self, path: &Path) -> std::io::Result<bool> {
        self.0.is_tmpfs(path)
    }
    fn random(&self, out: &mut [u8]) {
        self.0.random(out);
    }
    fn boot_id(&self) -> Option<[u8; 16]> {
        self.0.boot_id()
    }
    fn has_swap(&self) -> Option<bool> {
        self.0.has_swap()
    }
}

/// A file that whoever opens it for writing waits for in vain, as on a disk that hangs.
fn hang_at(file: &Path) {
    assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
}

/// Has `hangs` done by a thread that does not come back, and then, as soon as that looks at the clocks, what must not
/// wait for it.
fn while_it_hangs<T: Send + 'static>(
    vault: &Arc<Vault>,
    looks: &Receiver<()>,
    hangs: impl FnOnce(&Vault) + Send + 'static,
    meanwhile: impl FnOnce(&Arc<Vault>) -> T + Send + 'static,
) -> T {
    let (first, second) = (vault.clone(), vault.clone());
    looks.try_iter().for_each(drop);
    let hanging = thread::spawn(move || hangs(&first));
    looks.recv_timeout(Duration::from_secs(20)).unwrap();
    let (sender, done) = channel();
    thread::spawn(move || sender.send(meanwhile(&second)));
    let done = done.recv_timeout(Duration::from_secs(20)).expect("it waits for the disk");
    assert!(!hanging.is_finished(), "nothing hung");
    done
}

fn watched(
    name: &str,
    is_tmpfs: bool,
    destroyer: Arc<dyn Destroyer>,
) -> (Folder, Arc<Watched>, Arc<Vault>, Receiver<()>) {
    let (folder, (sender, looks)) = (Folder::new(name), channel());
    let machine = Arc::new(Watched(Machine::new(1), Mutex::new(sender)));
    machine.0.is_tmpfs.store(is_tmpfs, Relaxed);
    let keys = if is_tmpfs { Keys::Runtime } else { Keys::Persistent };
    let vault = Vault::open(VaultOptions { keys, destroyer, ..options(&folder) }, machine.clone()).unwrap();
    (folder, machine, vault, looks)
}

#[test]
fn a_disk_that_hangs_at_the_clocks_file_holds_up_neither_gate_nor_keys() {
    let (folder, machine, vault, looks) = watched("hang-clock", true, Arc::new(Overwriter));
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    machine.0.pass(7 * DAY);
    hang_at(&folder.join("state/clock.new"));
    let gone = while_it_hangs(
        &vault,
        &looks,
        |vault| drop(vault.sweep()),
        move |vault| {
            vault.gate().check(vault.clock().unix_seconds);
            let again = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
            assert!(vault.open_sealed(&again, &ID).is_ok() && vault.pseudonym("", ip("192.0.2.7")).is_some());
            vault.open_sealed(&sealed, &ID)
        },
    );
    assert!(matches!(gone, Err(OpenError::KeyGone { .. })));
    assert_eq!(key_files(&folder), ["2026-12-05..key", "2026-12-05.clinic.key"]);
}

#[test]
fn a_disk_that_hangs_at_a_new_key_holds_up_neither_gate_nor_keys_that_are_there() {
    let (folder, _machine, vault, looks) = watched("hang-new", false, Arc::new(Overwriter));
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    hang_at(&folder.join("keys/2026-11-28.school.key.new"));
    let hangs = |vault: &Vault| drop(vault.seal("school", &ID, b"192.0.2.7"));
    while_it_hangs(&vault, &looks, hangs, |vault| {
        vault.gate().check(u64::MAX);
        let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
        assert!(vault.open_sealed(&sealed, &ID).is_ok() && vault.index("clinic", ip("192.0.2.7")).is_some());
        assert_eq!(vault.pseudonym("", ip("192.0.2.7")), None, "whoever logs makes no key on a disk");
        assert_eq!(vault.status().len(), 1, "what is not written is no key yet");
    });
}

#[test]
fn a_disk_that_hangs_at_a_keys_end_holds_up_nobody_and_the_key_is_used_by_nobody() {
    struct Hangs;
    impl Destroyer for Hangs {
        fn destroy(&self, _file: &Path) -> std::io::Result<()> {
            thread::park_timeout(Duration::from_secs(30));
            Ok(())
        }
    }
    let (folder, machine, vault, looks) = watched("hang-end", false, Arc::new(Hangs));
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    machine.0.pass(7 * DAY);
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    while_it_hangs(
        &vault,
        &looks,
        |vault| drop(vault.sweep()),
        move |vault| {
            vault.gate().check(vault.clock().unix_seconds);
            assert!(matches!(vault.open_sealed(&sealed, &ID), Err(OpenError::KeyGone { .. })));
            vault.configure(7, vec![]);
            assert!(vault.seal("clinic", &ID, b"192.0.2.7").is_ok());
        },
    );
    assert_eq!(key_files(&folder), ["2026-11-28.clinic.key", "2026-12-05.clinic.key"]);
    machine.0.pass(HOUR);
    assert_eq!(vault.late_max(), 13 * HOUR);
}

#[test]
fn names_for_a_log_come_from_a_disk_with_the_next_sweep() {
    let (folder, _machine, vault, _looks) = watched("wanted", false, Arc::new(Overwriter));
    assert_eq!(vault.pseudonym("", ip("192.0.2.7")), None);
    vault.sweep();
    assert!(vault.pseudonym("", ip("192.0.2.7")).is_some());
    assert_eq!(key_files(&folder), ["2026-11-28..key"]);
}

#[test]
fn a_key_that_cannot_be_written_is_not_used_and_leaves_nothing() {
    let (folder, _machine, vault) = start("unwritten");
    fs::create_dir_all(folder.join("keys/2026-11-28.clinic.key/not-empty")).unwrap();
    assert!(vault.seal("clinic", &ID, b"192.0.2.7").is_err());
    assert!(!folder.join("keys/2026-11-28.clinic.key.new").exists());
    assert!(vault.seal("school", &ID, b"192.0.2.7").is_ok());
    fs::remove_dir_all(folder.join("keys/2026-11-28.clinic.key")).unwrap();
    vault.sweep();
    assert!(vault.seal("clinic", &ID, b"192.0.2.7").is_ok());
}

/// The kernel's memory and file systems, and the test's clocks.
struct Kernel(Machine, LockedMemory);

impl Platform for Kernel {
    fn moment(&self) -> Moment {
        self.0.moment()
    }
    fn cells(&self) -> &dyn KeyCells {
        &self.1
    }
    fn is_tmpfs(&self, path: &Path) -> std::io::Result<bool> {
        sluice_net::os::is_tmpfs(path)
    }
    fn random(&self, out: &mut [u8]) {
        self.0.random(out);
    }
    fn boot_id(&self) -> Option<[u8; 16]> {
        sluice_net::os::boot_id()
    }
    fn has_swap(&self) -> Option<bool> {
        sluice_net::os::has_swap()
    }
}

#[test]
fn keys_lie_in_the_kernels_locked_memory_and_on_its_tmpfs() {
    let (folder, shared) = (Folder::new("kernel"), Path::new("/dev/shm").join(format!("keys-{}", std::process::id())));
    let kernel = Arc::new(Kernel(Machine::new(1), LockedMemory::default()));
    let on_tmpfs = || VaultOptions { keys_directory: Some(shared.clone()), ..options(&folder) };
    let sealed = Vault::open(on_tmpfs(), kernel.clone()).unwrap().seal("clinic", &ID, b"192.0.2.7").unwrap();
    let vault = Vault::open(on_tmpfs(), kernel.clone()).unwrap();
    assert_eq!(*vault.open_sealed(&sealed, &ID).unwrap(), b"192.0.2.7");
    kernel.0.pass(7 * DAY);
    assert_eq!(vault.sweep().keys.len(), 1);
    fs::remove_file(shared.join("lock")).unwrap();
    fs::remove_dir(&shared).expect("nothing is left there");
}

/// A machine that locks no memory.
struct Full(Arc<Machine>);

struct Refused;

impl KeyCells for Refused {
    fn cell(&self, _bytes: [u8; 32]) -> std::io::Result<Box<dyn KeyCell>> {
        Err(std::io::ErrorKind::OutOfMemory.into())
    }
}

impl Platform for Full {
    fn moment(&self) -> Moment {
        self.0.moment()
    }
    fn cells(&self) -> &dyn KeyCells {
        &Refused
    }
    fn is_tmpfs(&self, path: &Path) -> std::io::Result<bool> {
        self.0.is_tmpfs(path)
    }
    fn random(&self, out: &mut [u8]) {
        self.0.random(out);
    }
    fn boot_id(&self) -> Option<[u8; 16]> {
        self.0.boot_id()
    }
    fn has_swap(&self) -> Option<bool> {
        self.0.has_swap()
    }
}

#[test]
fn memory_that_the_kernel_does_not_lock_is_an_error_that_says_what_to_do() {
    let folder = Folder::new("full");
    let why = Vault::open(options(&folder), Arc::new(Full(Arc::new(Machine::new(1))))).unwrap_err().to_string();
    assert!(why.contains("LimitMEMLOCK"), "{why}");
}

/// Two keys of a run that is over, of which the first is due.
fn one_due_of_two(name: &str) -> (Folder, Arc<Machine>) {
    let (folder, machine, vault) = start(name);
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    machine.pass(2 * DAY);
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    drop(vault);
    machine.pass(5 * DAY);
    assert_eq!(key_files(&folder), ["2026-11-28.clinic.key", "2026-11-30.clinic.key"]);
    (folder, machine)
}

#[test]
fn a_start_that_gets_no_locked_memory_has_destroyed_what_was_due() {
    let (folder, machine) = one_due_of_two("unlocked");
    assert!(matches!(Vault::open(options(&folder), Arc::new(Full(machine))), Err(VaultError::Memory(_))));
    assert_eq!(key_files(&folder), ["2026-11-30.clinic.key"]);
}

#[test]
fn a_start_that_cannot_read_a_key_has_destroyed_what_was_due() {
    let (folder, machine) = one_due_of_two("unreadable");
    for day in ["2026-11-29", "2026-12-01"] {
        // Reading a directory fails, and so does unlinking it.
        fs::create_dir(folder.join(&format!("keys/{day}.clinic.key"))).unwrap();
    }
    let why = Vault::open(options(&folder), machine.clone()).unwrap_err().to_string();
    assert!(why.contains("2026-11-29.clinic.key") || why.contains("2026-12-01.clinic.key"), "{why}");
    assert!(!folder.join("keys/2026-11-28.clinic.key").exists());
    fs::remove_dir(folder.join("keys/2026-12-01.clinic.key")).unwrap();
    machine.pass(DAY);
    let vault = open(&folder, &machine);
    assert_eq!(vault.sweep().failed.len(), 1, "one that is due by its name alone");
}

#[test]
fn a_clock_that_is_set_back_again_and_again_keeps_a_key_no_longer_than_the_machine_counts() {
    let (folder, machine, mut vault) = start("back");
    let noon = vault.clock().unix_seconds;
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    for day in 1..=6 {
        machine.pass(DAY);
        machine.set_wall_clock(noon);
        // What is sealed meanwhile is under the same key, whose end does not move.
        vault.seal("clinic", &ID, b"192.0.2.8").unwrap();
        if day == 3 {
            drop(vault);
            vault = open(&folder, &machine);
        }
    }
    machine.pass(12 * HOUR - Duration::from_secs(1));
    machine.set_wall_clock(noon);
    assert!(vault.open_sealed(&sealed, &ID).is_ok());
    machine.pass(Duration::from_secs(1));
    machine.set_wall_clock(noon);
    assert!(matches!(vault.open_sealed(&sealed, &ID), Err(OpenError::KeyGone { .. })));
    assert!(key_files(&folder).is_empty());
}

#[test]
fn a_start_that_fails_has_destroyed_what_was_due() {
    let (folder, machine, vault) = start("fails");
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    drop(vault);
    fs::write(folder.join("state/secrets/signing.key"), b"torn").unwrap();
    machine.pass(8 * DAY);
    assert!(Vault::open(options(&folder), machine.clone()).is_err());
    assert!(key_files(&folder).is_empty());
}
