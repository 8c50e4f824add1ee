//! The record plane alone, which takes more admissions than any relay asks of it.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{DISK_MEBIBYTES, KILLS_PER_DISK, STATE, a_life};
use crate::disk::Disk;
use crate::report::Report;
use crate::{install, netns, shell};

/// How long opening what is left may take.
const CHECK_LIMIT: Duration = Duration::from_secs(30);

/// Reads the ids of the sessions, and shares no code with what wrote them.
const LIST: &str = "
import sqlite3, sys
for (session,) in sqlite3.connect(sys.argv[1]).execute('SELECT id FROM session'):
    print(session.hex())
";

/// The test.
pub(super) fn run(report: &Report, kills: u32) {
    report.test(&format!("kills: {kills} of a record plane, and nothing acknowledged is lost"), || killed(kills));
}

fn killed(kills: u32) -> Result<(), String> {
    let mut build = shell::cargo();
    build.args(["build", "--release", "--locked", "--offline", "--quiet", "-p", "sluice-record"]);
    shell::show(build.args(["--example", "admissions"]))?;
    let mut acknowledged = 0;
    let mut done = 0;
    while done < kills {
        let mut victim = Victim::new()?;
        for _ in 0..KILLS_PER_DISK.min(kills - done) {
            let after = a_life()?;
            victim =
                victim.killed_after(after).map_err(|why| format!("killed after {} ms: {why}", after.as_millis()))?;
            done += 1;
        }
        acknowledged += victim.acknowledged.len();
    }
    println!("      {acknowledged} acknowledged in {kills} lives");
    if acknowledged > 0 { Ok(()) } else { Err("nothing was acknowledged, so nothing is shown".to_owned()) }
}

/// A record plane on a disk of its own.
struct Victim {
    disk: Disk,
    keys: PathBuf,
    /// Ids of the sessions that were acknowledged in all of its lives.
    acknowledged: HashSet<String>,
    lives: u32,
}

impl Victim {
    fn new() -> Result<Self, String> {
        let keys = netns::folder()?.join("kills-keys");
        // Those of a former test open nothing.
        let _ = std::fs::remove_dir_all(&keys);
        std::fs::create_dir_all(&keys).map_err(|e| format!("{}: {e}", keys.display()))?;
        let disk = Disk::new("kills", DISK_MEBIBYTES)?;
        Ok(Victim { disk, keys, acknowledged: HashSet::new(), lives: 0 })
    }

    /// One life: it starts, works, is killed, and what is on the disk at that moment is what goes on.
    fn killed_after(mut self, after: Duration) -> Result<Self, String> {
        let log = netns::folder()?.join("kills.acknowledged");
        let out = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let mut command = Command::new(program());
        command.args(self.directories(&self.disk)).stdin(Stdio::null()).stdout(out);
        let mut child = command.spawn().map_err(|e| format!("admissions: {e}"))?;
        // The moment is what is being tried; there is no event that it could be.
        std::thread::sleep(after);
        child.kill().and_then(|()| child.wait()).map_err(|e| e.to_string())?;
        self.lives += 1;
        let disk = self.disk.copy(&format!("kills-{}", self.lives))?.mount()?;
        self.acknowledged.extend(acknowledged(&log)?);
        let mut check = shell::limited(CHECK_LIMIT, &program().to_string_lossy());
        shell::capture(check.args(self.directories(&disk)).arg("check"))?.ok("what is left")?;
        let there = sessions(&disk.path().join(STATE))?;
        let lost = self.acknowledged.difference(&there).count();
        if lost > 0 {
            return Err(format!("{lost} of {} acknowledged sessions are lost", self.acknowledged.len()));
        }
        Ok(Victim { disk, ..self })
    }

    /// The state directory on a disk, and the keys of the day, which outlive a process in memory.
    fn directories(&self, disk: &Disk) -> [PathBuf; 2] {
        [disk.path().join(STATE), self.keys.clone()]
    }
}

/// A record plane and its load.
fn program() -> PathBuf {
    shell::target().join("release/examples/admissions")
}

/// What was acknowledged; a line that the kill has torn was not.
fn acknowledged(log: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(log).map_err(|e| format!("{}: {e}", log.display()))?;
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    Ok(whole.map(str::to_owned).collect())
}

/// The sessions in a store.
fn sessions(state: &Path) -> Result<HashSet<String>, String> {
    let mut list = shell::limited(CHECK_LIMIT, install::PYTHON);
    let text = shell::capture(list.args(["-c", LIST]).arg(state.join("records.db")))?.ok("the list of sessions")?;
    Ok(text.lines().map(str::to_owned).collect())
}
