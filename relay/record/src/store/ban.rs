//! Bans that outlive a restart.

use std::net::IpAddr;

use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sluice_base::Pii;
use sluice_base::limits::{BAN_LIFETIME_MAX, BANS_KEPT_MAX};
use sluice_crypto::{Zeroizing, hex_encode};
use sluice_privacy::Day;
use sluice_privacy::seal::Header;

use super::session::time;
use super::{Failure, Store, Writer};
use crate::audit::Kind;
use crate::plane::Asker;
use crate::vault::Vault;

/// The relay as a whole, where a tenant is asked for.
const RELAY: &str = "";

/// A ban of a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ban {
    /// Names it.
    pub id: [u8; 16],
    /// Whom it is for.
    pub target: BanTarget,
    /// Whoever made it knew no address, but a pseudonym.
    pub by_pseudonym: bool,
    /// Why, in the operator's words.
    pub reason: String,
    /// Since when, in seconds since the Unix epoch.
    pub created: u64,
    /// Until when: at the latest when the key of the day of its making dies.
    pub expires: u64,
}

/// A network: the first bits of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BanTarget {
    /// Any address of it.
    pub address: Pii<IpAddr>,
    /// How many of its bits count; for a single address all 32 or 128.
    pub bits: u8,
}

/// A ban that is wanted.
pub(crate) struct WantedBan {
    pub(crate) target: BanTarget,
    pub(crate) by_pseudonym: bool,
    pub(crate) seconds: u64,
}

/// What is sealed of a ban.
#[derive(Serialize, Deserialize)]
struct Secret {
    address: IpAddr,
    bits: u8,
    #[serde(default)]
    by_pseudonym: bool,
    reason: String,
}

impl Writer<'_> {
    /// Writes a ban. It ends when it is asked to, or with the key that it is sealed under. `None` when there are
    /// [`BANS_KEPT_MAX`] already.
    pub(crate) fn ban(&mut self, wanted: &WantedBan, asker: &Asker, id: [u8; 16]) -> Result<Option<Ban>, Failure> {
        let WantedBan { target, by_pseudonym, seconds } = *wanted;
        let (created, reason) = (self.now.unix_seconds, asker.reason.clone());
        let count: usize = self.connection.query_row("SELECT COUNT(*) FROM ban", [], |row| row.get(0))?;
        if count >= BANS_KEPT_MAX {
            return Ok(None);
        }
        let (address, bits) = (*target.address.expose(), target.bits);
        let secret = Secret { address, bits, by_pseudonym, reason: reason.clone() };
        let text = Zeroizing::new(serde_json::to_vec(&secret).unwrap_or_default());
        let sealed = self.vault.seal(RELAY, &id, &text).map_err(Failure::sealing)?;
        let day = Header::read(&sealed).map_or(Day(0), |header| header.day);
        let longest = created.saturating_add(BAN_LIFETIME_MAX.as_secs());
        let expires = created.saturating_add(seconds).min(longest).min(key_dies(self.vault, day).unwrap_or(longest));
        let insert = "INSERT INTO ban (id, tenant, day, created, expires, sealed) VALUES (?, ?, ?, ?, ?, ?)";
        let values = params![id.as_slice(), RELAY, day.0, time(created), time(expires), sealed];
        self.connection.prepare_cached(insert)?.execute(values)?;
        let body = asker.add_to(json!({ "ban": hex_encode(&id), "expires": expires }));
        self.entry(created, Kind::BanAdded, RELAY, None, body)?;
        Ok(Some(Ban { id, target, by_pseudonym, reason, created, expires }))
    }

    /// Removes bans whose end has come while nobody looked.
    pub(crate) fn end_old_bans(&mut self) -> Result<(), Failure> {
        self.connection.execute("DELETE FROM ban WHERE expires <= ?", [time(self.now.unix_seconds)])?;
        Ok(())
    }

    /// Removes bans that have ended.
    pub(crate) fn end_bans(&mut self, ids: &[[u8; 16]]) -> Result<(), Failure> {
        let mut remove = self.connection.prepare_cached("DELETE FROM ban WHERE id = ?")?;
        ids.iter().try_for_each(|id| remove.execute([id.as_slice()]).map(drop))?;
        Ok(())
    }

    /// Lifts a ban. False when there is none of that id.
    pub(crate) fn lift(&mut self, id: [u8; 16], asker: &Asker) -> Result<bool, Failure> {
        let removed = self.connection.execute("DELETE FROM ban WHERE id = ?", [id.as_slice()])?;
        if removed > 0 {
            let body = asker.add_to(json!({ "ban": hex_encode(&id) }));
            self.entry(self.now.unix_seconds, Kind::BanRemoved, RELAY, None, body)?;
        }
        Ok(removed > 0)
    }
}

impl Store {
    /// Whether addresses are kept of what is the relay's own.
    pub(crate) fn keeps_addresses(&self) -> bool {
        self.vault().ip_retention_days(RELAY) > 0
    }

    /// The bans that hold: those whose end has not come and whose key lives.
    pub(crate) fn bans(&self, unix_seconds: u64) -> Result<Vec<Ban>, Failure> {
        let query = "SELECT id, created, expires, sealed FROM ban WHERE expires > ? ORDER BY created";
        let mut query = self.connection().prepare_cached(query)?;
        let rows = query.query_map([time(unix_seconds)], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?, row.get(2)?, row.get::<_, Vec<u8>>(3)?))
        })?;
        let mut bans = Vec::new();
        for row in rows {
            let (id, created, expires, sealed) = row?;
            let opened = self.vault().open_sealed(&sealed, &id).ok();
            if let Some(secret) = opened.and_then(|text| serde_json::from_slice::<Secret>(&text).ok()) {
                let target = BanTarget { address: Pii::new(secret.address), bits: secret.bits };
                let Secret { by_pseudonym, reason, .. } = secret;
                bans.push(Ban { id, target, by_pseudonym, reason, created, expires });
            }
        }
        Ok(bans)
    }
}

/// When the relay's own key of a day dies.
fn key_dies(vault: &Vault, day: Day) -> Option<u64> {
    vault.status().into_iter().find(|key| &*key.tenant == RELAY && key.day == day).map(|key| key.dies)
}
