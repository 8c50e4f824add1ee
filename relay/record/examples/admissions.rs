//! A record plane under load, to be killed: `admissions STATE KEYS` admits sessions until its end and prints the id of
//! each that is acknowledged; `admissions STATE KEYS check` opens what is left, and says whether the audit is whole.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_base::event::{Began, RelayEvent};
use sluice_base::memory::KeyCells;
use sluice_base::{Pii, SessionId, TenantId, TransportAddress};
use sluice_privacy::Moment;
use sluice_record::audit;
use sluice_record::plane::{self, Admission, Plane, PlaneOptions, TenantTable};
use sluice_record::testing::Machine;
use sluice_record::vault::{Platform, VaultOptions};

/// Admissions whose answers are waited for at once: as many clients.
const OUTSTANDING: u32 = 32;

/// The test's machine, with this one's wall clock.
struct Here(Machine, Instant);

impl Platform for Here {
    fn moment(&self) -> Moment {
        let boot = self.0.moment().boot.after(self.1.elapsed());
        Moment { unix_seconds: unix_seconds(), boot }
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

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(state), Some(keys)) = (arguments.next(), arguments.next()) else {
        return Err("usage: admissions STATE KEYS [check]".into());
    };
    let machine = Machine::new(u64::from(std::process::id()));
    let options = PlaneOptions::new(VaultOptions::new(state.clone(), Some(keys)), TenantTable::of(&["main"]));
    let plane = plane::start(options, Arc::new(Here(machine, Instant::now())))?;
    if arguments.next().is_some() {
        return check(&state, plane);
    }
    admit(&plane)
}

/// Never ends by itself.
fn admit(plane: &Plane) -> Result<(), Box<dyn Error>> {
    let (tell, told) = channel();
    let (mut number, mut outstanding) = (0, 0);
    let mut out = stdout().lock();
    loop {
        while outstanding < OUTSTANDING {
            let (admission, tell) = (admission(number), tell.clone());
            let (began, session) = (began(&admission), admission.session);
            let answer = Box::new(move |is_written| {
                // Nobody hears it any more only when this ends.
                let _ = tell.send((session, is_written));
            });
            outstanding += u32::from(plane.handle.admit(admission, answer));
            // What need not be written before anybody goes on comes beside it.
            plane.handle.event(began);
            number += 1;
        }
        let (SessionId(id), is_written) = told.recv()?;
        outstanding -= 1;
        if is_written {
            let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(out, "{id}")?;
        }
    }
}

fn check(state: &Path, plane: Plane) -> Result<(), Box<dyn Error>> {
    if !plane.stop() {
        return Err("the plane has ended by itself".into());
    }
    let verified = audit::verify(state, &audit::published_key(state)?)??;
    writeln!(stdout(), "{} entries of the audit are whole", verified.entries)?;
    Ok(())
}

fn admission(number: u32) -> Admission {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    id[4..8].copy_from_slice(&std::process::id().to_be_bytes());
    let user = Pii::new(Arc::from(&b"zelda"[..]));
    Admission {
        session: SessionId(id),
        tenant: TenantId(0),
        user,
        client: client(number),
        unix_seconds: unix_seconds(),
    }
}

fn began(admission: &Admission) -> RelayEvent {
    let lifetime = Duration::from_secs(600);
    let Admission { session, tenant, user, client, unix_seconds } = admission.clone();
    RelayEvent::Began(Began { session, tenant, user, client, relayed: [None, None], unix_seconds, lifetime })
}

fn client(number: u32) -> TransportAddress {
    let [_, a, b, c] = number.to_be_bytes();
    Pii::new(([10, a, b, c], 4000).into())
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
