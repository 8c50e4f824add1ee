//! Long-term credentials (RFC 8489, 9.2), with stateless nonces and time-limited user names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_base::limits::USERNAME_BYTES_MAX;
use sluice_base::stats::Code;
use sluice_base::{ListenerId, Now, Pii, Secret, TenantId, TransportAddress};
use sluice_crypto::{HmacKey, HmacSha256Key};
use sluice_wire::stun::{Message, PasswordAlgorithm};

use crate::options::{Listener, ServerOptions, Tenant};
use crate::settings::Settings;

/// The cookie of RFC 8489, 9.2: what follows are the security features.
const NONCE_COOKIE: &str = "obMatJos2";
/// Cookie, 4 characters of features, 8 of time, 24 of signature.
const NONCE_BYTES: usize = 9 + 4 + 8 + 24;
/// Security features in Base64: bit 0, password algorithms. Bit 0 is the rightmost of 24 (RFC 8489, 18.1
/// with its verified erratum 6290, as libjuice reads them).
const FEATURES: &[u8; 4] = b"AAAB";
/// The same with bit 1, user name anonymity.
const FEATURES_ANONYMITY: &[u8; 4] = b"AAAD";
/// PASSWORD-ALGORITHMS as it is offered: SHA-256 before MD5, neither with parameters (RFC 8489, 18.5).
pub(crate) const OFFERED_ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

/// A nonce on the stack.
pub(crate) type Nonce = [u8; NONCE_BYTES];

/// Somebody who proved a password, and how, so that the same credentials are known again without
/// deriving a key.
pub(crate) struct Identity {
    pub(crate) tenant: TenantId,
    /// The user name without expiry and tenant.
    pub(crate) user: Pii<Arc<[u8]>>,
    pub(crate) signer: Signer,
    name: Pii<Arc<[u8]>>,
    hashed: bool,
    algorithm: PasswordAlgorithm,
    listener: ListenerId,
    /// Of the settings that it was proved under.
    settings: u32,
}

/// A kept key, of the integrity that the client used (RFC 8489, 9.2.4: the answer uses the same).
pub(crate) enum Signer {
    Sha1(HmacKey),
    Sha256(HmacSha256Key),
}

/// Whom a request claims to be.
struct Claimed<'a> {
    name: &'a [u8],
    /// `name` is a USERHASH.
    hashed: bool,
    algorithm: PasswordAlgorithm,
    listener: ListenerId,
}

/// Checks credentials; no state of its own but the kept tables.
pub(crate) struct Authenticator {
    tenants: Arc<[Tenant]>,
    listeners: Arc<[Listener]>,
    nonce_key: HmacKey,
    nonce_lifetime: Duration,
    /// By USERHASH (RFC 8489, 14.4); only where every user is static, since a time-limited name
    /// cannot be recovered from its hash.
    userhashes: Option<Arc<UserHashes>>,
    /// Counts the settings of this process: an identity of former ones is proved again.
    settings: u32,
}

/// Static users by the hash of their name, and the listener that they come to.
pub(crate) type UserHashes = BTreeMap<(ListenerId, [u8; 32]), HiddenUser>;

/// Whom a USERHASH names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HiddenUser {
    tenant: TenantId,
    user: u32,
    /// It was made of `tenant/user`.
    qualified: bool,
}

impl Authenticator {
    pub(crate) fn new(settings: &Settings, nonce_key: &Secret<[u8; 32]>) -> Self {
        let Settings { options, userhashes, .. } = settings;
        Authenticator {
            tenants: options.tenants.clone(),
            listeners: options.listeners.clone(),
            nonce_key: HmacKey::sha1(nonce_key.expose()),
            nonce_lifetime: options.nonce_lifetime,
            userhashes: userhashes.clone(),
            settings: 0,
        }
    }

    /// Takes over other tenants and users: whom they no longer have is no longer known.
    pub(crate) fn configure(&mut self, settings: &Settings) {
        let Settings { options, userhashes, .. } = settings;
        self.tenants = options.tenants.clone();
        self.nonce_lifetime = options.nonce_lifetime;
        self.userhashes = userhashes.clone();
        self.settings += 1;
    }

    /// A nonce for this client, valid from now on.
    pub(crate) fn nonce(&self, now: Now, client: TransportAddress) -> Nonce {
        let seconds = (now.mono.nanos() / 1_000_000_000) as u32;
        self.nonce_of(seconds, client)
    }

    /// The realm of a listener.
    pub(crate) fn realm(&self, listener: ListenerId) -> &str {
        &self.listeners[usize::from(listener.0)].realm
    }

    /// Authenticates a request (RFC 8489, 9.2.4). `known` is who owns the five-tuple's allocation:
    /// the same credentials are checked with the kept key, and a time-limited name that has run out
    /// meanwhile still ends or refreshes what it began.
    pub(crate) fn authenticate(
        &self,
        now: Now,
        client: TransportAddress,
        listener: ListenerId,
        message: &Message<'_>,
        known: Option<&Arc<Identity>>,
    ) -> Result<Arc<Identity>, Code> {
        let attributes = &message.attributes;
        if attributes.message_integrity.is_none() && attributes.message_integrity_sha256.is_none() {
            return Err(Code::Unauthenticated);
        }
        let (name, hashed) = match (attributes.username, attributes.userhash) {
            (Some(name), _) if name.len() <= USERNAME_BYTES_MAX => (name, false),
            (None, Some(hash)) => (&hash[..], true),
            _ => return Err(Code::BadRequest),
        };
        let (Some(realm), Some(nonce)) = (attributes.realm, attributes.nonce) else {
            return Err(Code::BadRequest);
        };
        if !self.nonce_is_valid(now, client, nonce) {
            return Err(Code::StaleNonce);
        }
        let claimed = Claimed { name, hashed, algorithm: self.algorithm(message)?, listener };
        let known = known.filter(|identity| identity.presented(&claimed));
        if let Some(identity) = known
            && identity.settings == self.settings
            && identity.signer.serves(message)
        {
            return if identity.signer.verify(message) { Ok(identity.clone()) } else { Err(Code::Unauthenticated) };
        }
        if realm != self.realm(listener).as_bytes() {
            return Err(Code::Unauthenticated);
        }
        let began = known.is_some_and(|identity| identity.settings != self.settings && identity.signer.serves(message));
        self.identify(now, message, &claimed, began).map(Arc::new).ok_or(Code::Unauthenticated)
    }

    /// The password algorithm, bid-down checked (RFC 8489, 9.2.4).
    fn algorithm(&self, message: &Message<'_>) -> Result<PasswordAlgorithm, Code> {
        match (message.attributes.password_algorithms, message.attributes.password_algorithm) {
            (None, None) => Ok(PasswordAlgorithm::Md5),
            (Some(offered), Some(chosen))
                if offered == OFFERED_ALGORITHMS && !matches!(chosen, PasswordAlgorithm::Other(_)) =>
            {
                Ok(chosen)
            }
            _ => Err(Code::BadRequest),
        }
    }

    /// `began`: an allocation that there is was begun by these very credentials, under former settings: the name need
    /// not be in time any more.
    fn identify(&self, now: Now, message: &Message<'_>, claimed: &Claimed<'_>, began: bool) -> Option<Identity> {
        if claimed.hashed {
            return self.with_hidden_user(message, claimed);
        }
        let default = self.listeners[usize::from(claimed.listener.0)].tenant;
        let fixed = self.static_user(default, claimed.name);
        if let Some(identity) = fixed.and_then(|(tenant, user)| self.with_static_user(message, claimed, tenant, user)) {
            return Some(identity);
        }
        let (expiry, rest) = split_expiry(claimed.name)?;
        if expiry <= now.unix_seconds && !began {
            return None;
        }
        let (tenant, user) = self.split_tenant(default, rest);
        self.tenants[usize::from(tenant.0)].secrets.iter().find_map(|secret| {
            let password = sluice_crypto::rest_password(secret.expose(), claimed.name);
            self.try_password(message, claimed, claimed.name, &password, tenant, user)
        })
    }

    fn with_static_user(&self, m: &Message<'_>, c: &Claimed<'_>, tenant: TenantId, user: usize) -> Option<Identity> {
        let user = &self.tenants[usize::from(tenant.0)].users[user];
        // The key is made of the name as it was sent, which may have named the tenant.
        self.try_password(m, c, c.name, user.password.expose(), tenant, user.name.expose().as_bytes())
    }

    fn with_hidden_user(&self, m: &Message<'_>, c: &Claimed<'_>) -> Option<Identity> {
        let hash = c.name.try_into().ok()?;
        let HiddenUser { tenant, user, qualified } = *self.userhashes.as_ref()?.get(&(c.listener, hash))?;
        let of = &self.tenants[usize::from(tenant.0)];
        let user = &of.users[user as usize];
        let name = user.name.expose();
        let full = if qualified { format!("{}/{name}", of.name) } else { name.clone() };
        self.try_password(m, c, full.as_bytes(), user.password.expose(), tenant, name.as_bytes())
    }

    fn try_password(
        &self,
        message: &Message<'_>,
        claimed: &Claimed<'_>,
        full_name: &[u8],
        password: &str,
        tenant: TenantId,
        user: &[u8],
    ) -> Option<Identity> {
        let realm = self.realm(claimed.listener).as_bytes();
        let signer = Signer::derive(message, claimed.algorithm, full_name, realm, password.as_bytes());
        signer.verify(message).then(|| Identity {
            tenant,
            user: Pii::new(user.into()),
            signer,
            name: Pii::new(claimed.name.into()),
            hashed: claimed.hashed,
            algorithm: claimed.algorithm,
            listener: claimed.listener,
            settings: self.settings,
        })
    }

    fn static_user(&self, default: TenantId, name: &[u8]) -> Option<(TenantId, usize)> {
        let find = |tenant: TenantId, name: &[u8]| {
            let users = &self.tenants[usize::from(tenant.0)].users;
            users.iter().position(|u| u.name.expose().as_bytes() == name).map(|user| (tenant, user))
        };
        find(default, name).or_else(|| {
            let (tenant, user) = self.split_tenant(default, name);
            find(tenant, user)
        })
    }

    /// `tenant/user`, where such a tenant exists; else the whole name is the default tenant's.
    fn split_tenant<'a>(&self, default: TenantId, name: &'a [u8]) -> (TenantId, &'a [u8]) {
        let split = name.iter().position(|b| *b == b'/').and_then(|at| {
            let tenant = self.tenants.iter().position(|t| t.name.as_bytes() == &name[..at])?;
            Some((TenantId(tenant as u16), &name[at + 1..]))
        });
        split.unwrap_or((default, name))
    }

    fn nonce_of(&self, seconds: u32, client: TransportAddress) -> Nonce {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..9].copy_from_slice(NONCE_COOKIE.as_bytes());
        nonce[9..13].copy_from_slice(if self.userhashes.is_some() { FEATURES_ANONYMITY } else { FEATURES });
        sluice_crypto::hex(&seconds.to_be_bytes(), &mut nonce[13..21]);
        let tag = self.nonce_tag(&nonce[..21], client);
        sluice_crypto::hex(&tag[..12], &mut nonce[21..]);
        nonce
    }

    fn nonce_tag(&self, head: &[u8], client: TransportAddress) -> [u8; 20] {
        let mut bound = [0; 18];
        let mut len = 0;
        client.feed(|part| {
            bound[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        });
        self.nonce_key.sign(&[head, &bound[..len]])
    }

    fn nonce_is_valid(&self, now: Now, client: TransportAddress, nonce: &[u8]) -> bool {
        let Some(seconds) = nonce.get(13..21).and_then(|hex| std::str::from_utf8(hex).ok()) else {
            return false;
        };
        let Ok(seconds) = u32::from_str_radix(seconds, 16) else {
            return false;
        };
        let age = ((now.mono.nanos() / 1_000_000_000) as u32).wrapping_sub(seconds);
        u64::from(age) <= self.nonce_lifetime.as_secs() && sluice_crypto::equal(&self.nonce_of(seconds, client), nonce)
    }
}

impl Signer {
    fn derive(m: &Message<'_>, algorithm: PasswordAlgorithm, name: &[u8], realm: &[u8], password: &[u8]) -> Self {
        let sha256 = m.attributes.message_integrity_sha256.is_some();
        let of = |key: &[u8]| match sha256 {
            true => Signer::Sha256(HmacSha256Key::new(key)),
            false => Signer::Sha1(HmacKey::sha1(key)),
        };
        if algorithm == PasswordAlgorithm::Sha256 {
            of(sluice_crypto::long_term_key_sha256(name, realm, password).expose())
        } else {
            of(sluice_crypto::long_term_key_md5(name, realm, password).expose())
        }
    }

    /// Whether the message uses this kind of integrity; of two, the stronger counts.
    fn serves(&self, message: &Message<'_>) -> bool {
        matches!(self, Signer::Sha256(_)) == message.attributes.message_integrity_sha256.is_some()
    }

    fn verify(&self, message: &Message<'_>) -> bool {
        let attributes = &message.attributes;
        match self {
            Signer::Sha1(key) => attributes.message_integrity.as_ref().is_some_and(|integrity| {
                let (header, rest) = message.integrity_input(integrity);
                key.verify(&[&header, rest], integrity.tag)
            }),
            Signer::Sha256(key) => attributes.message_integrity_sha256.as_ref().is_some_and(|integrity| {
                let (header, rest) = message.integrity_input(integrity);
                key.verify(&[&header, rest], integrity.tag)
            }),
        }
    }
}

impl Identity {
    /// The same person of the same tenant, whatever time-limited name was used.
    pub(crate) fn is_same_user(&self, other: &Identity) -> bool {
        self.tenant == other.tenant && self.user == other.user
    }

    /// Whether these are the same credentials, proved again under later settings.
    pub(crate) fn renews(&self, former: &Identity) -> bool {
        let same = self.name == former.name && self.hashed == former.hashed && self.algorithm == former.algorithm;
        same && self.listener == former.listener && self.is_same_user(former) && self.settings != former.settings
    }

    fn presented(&self, claimed: &Claimed<'_>) -> bool {
        **self.name.expose() == *claimed.name
            && self.hashed == claimed.hashed
            && self.algorithm == claimed.algorithm
            && self.listener == claimed.listener
    }
}

/// `expiry:rest`, or `expiry` alone, as coturn's REST scheme makes them.
fn split_expiry(name: &[u8]) -> Option<(u64, &[u8])> {
    let digits = name.iter().position(|b| *b == b':').unwrap_or(name.len());
    let text = std::str::from_utf8(&name[..digits]).ok()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((text.parse().ok()?, name.get(digits + 1..).unwrap_or(&[])))
}

/// The hash of every name by which a static user may come to a listener: alone to the listener's own
/// tenant, and behind its tenant's name to any.
pub(crate) fn userhashes(options: &ServerOptions) -> Option<Arc<UserHashes>> {
    if options.tenants.iter().any(|tenant| !tenant.secrets.is_empty()) {
        return None;
    }
    let mut all = BTreeMap::new();
    for (l, listener) in options.listeners.iter().enumerate() {
        let mut add = |name: &str, hidden| {
            let hash = sluice_crypto::userhash(name.as_bytes(), listener.realm.as_bytes());
            all.entry((ListenerId(l as u16), hash)).or_insert(hidden);
        };
        let default = &options.tenants[usize::from(listener.tenant.0)];
        for (u, user) in default.users.iter().enumerate() {
            add(user.name.expose(), HiddenUser { tenant: listener.tenant, user: u as u32, qualified: false });
        }
        for (t, tenant) in options.tenants.iter().enumerate() {
            for (u, user) in tenant.users.iter().enumerate() {
                let hidden = HiddenUser { tenant: TenantId(t as u16), user: u as u32, qualified: true };
                add(&format!("{}/{}", tenant.name, user.name.expose()), hidden);
            }
        }
    }
    Some(Arc::new(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_rest_scheme() {
        assert_eq!(split_expiry(b"1700000000:alice"), Some((1_700_000_000, &b"alice"[..])));
        assert_eq!(split_expiry(b"1700000000:t/a:b"), Some((1_700_000_000, &b"t/a:b"[..])));
        assert_eq!(split_expiry(b"1700000000"), Some((1_700_000_000, &b""[..])));
        for bad in [&b"alice"[..], b":alice", b"-1:alice", b"+1:a", b"99999999999999999999999:a", b""] {
            assert_eq!(split_expiry(bad), None);
        }
    }
}
