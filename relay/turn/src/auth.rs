//! Long-term credentials (RFC 8489, 9.2), with stateless nonces and time-limited user names.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use sluice_base::limits::{KEPT_CREDENTIALS, KEPT_CREDENTIALS_LIFETIME, USERNAME_BYTES_MAX};
use sluice_base::stats::Code;
use sluice_base::{ListenerId, Mono, Now, Pii, Secret, TenantId, TransportAddress};
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
    /// When a time-limited name ends, in seconds since the Unix epoch.
    expires: Option<u64>,
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

/// Checks credentials; no state of its own but what makes it fast.
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
    kept: Kept,
}

/// Somebody, and when they came last.
type Known = (Mono, Arc<Identity>);

/// Who has proved a password lately, so that no key is derived anew for each of their allocations: places by hash,
/// of which the later one has it.
struct Kept {
    places: Box<[Option<Known>]>,
    hasher: FixedState,
    /// The place that is looked at next for whether it is of use still.
    hand: usize,
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
    /// `seed` keeps those who choose their names from choosing each other's places.
    pub(crate) fn new(settings: &Settings, nonce_key: &Secret<[u8; 32]>, seed: u64) -> Self {
        let Settings { options, userhashes, .. } = settings;
        Authenticator {
            tenants: options.tenants.clone(),
            listeners: options.listeners.clone(),
            nonce_key: HmacKey::sha1(nonce_key.expose()),
            nonce_lifetime: options.nonce_lifetime,
            userhashes: userhashes.clone(),
            settings: 0,
            kept: Kept::new(seed),
        }
    }

    /// Takes over other tenants and users: whom they no longer have is no longer known.
    pub(crate) fn configure(&mut self, settings: &Settings) {
        let Settings { options, userhashes, .. } = settings;
        self.tenants = options.tenants.clone();
        self.nonce_lifetime = options.nonce_lifetime;
        self.userhashes = userhashes.clone();
        self.settings += 1;
        self.kept.clear();
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
        &mut self,
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
        if let Some(identity) = self.kept.find(now.mono, &claimed)
            && (began || identity.is_in_time(now))
            && identity.signer.serves(message)
            && identity.signer.verify(message)
        {
            return Ok(identity);
        }
        // The secret may be another one than before.
        let identity = self.identify(now, message, &claimed, began).map(Arc::new).ok_or(Code::Unauthenticated)?;
        self.kept.keep(now.mono, &claimed, identity.clone());
        Ok(identity)
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
        let proved = self.tenants[usize::from(tenant.0)].secrets.iter().find_map(|secret| {
            let password = sluice_crypto::rest_password(secret.expose(), claimed.name);
            self.try_password(message, claimed, claimed.name, &password, tenant, user)
        });
        proved.map(|identity| Identity { expires: Some(expiry), ..identity })
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
            expires: None,
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

impl Kept {
    fn new(seed: u64) -> Self {
        let places = (0..KEPT_CREDENTIALS).map(|_| None).collect();
        Kept { places, hasher: FixedState::with_seed(seed), hand: 0 }
    }

    fn clear(&mut self) {
        self.places.fill(None);
    }

    /// Whose credentials these may be: the password has still to be proved.
    fn find(&mut self, now: Mono, claimed: &Claimed<'_>) -> Option<Arc<Identity>> {
        self.forget_one(now);
        let at = self.place(claimed);
        let (used, identity) = self.places[at].as_mut()?;
        if !identity.presented(claimed) {
            return None;
        }
        *used = now;
        Some(identity.clone())
    }

    fn keep(&mut self, now: Mono, claimed: &Claimed<'_>, identity: Arc<Identity>) {
        let at = self.place(claimed);
        self.places[at] = Some((now, identity));
    }

    fn place(&self, claimed: &Claimed<'_>) -> usize {
        self.hasher.hash_one((claimed.name, claimed.listener)) as usize % self.places.len()
    }

    /// Names are not kept for longer than they are of use: each look-up looks at another place as well.
    fn forget_one(&mut self, now: Mono) {
        self.hand = (self.hand + 1) % self.places.len();
        self.places[self.hand].take_if(|(used, _)| now.since(*used) >= KEPT_CREDENTIALS_LIFETIME);
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

    fn is_in_time(&self, now: Now) -> bool {
        self.expires.is_none_or(|expires| now.unix_seconds < expires)
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
    use crate::harness::model::{Client, Proof, Relay, options, udp};
    use sluice_wire::stun::Method;

    #[test]
    fn names_of_the_rest_scheme() {
        assert_eq!(split_expiry(b"1700000000:alice"), Some((1_700_000_000, &b"alice"[..])));
        assert_eq!(split_expiry(b"1700000000:t/a:b"), Some((1_700_000_000, &b"t/a:b"[..])));
        assert_eq!(split_expiry(b"1700000000"), Some((1_700_000_000, &b""[..])));
        for bad in [&b"alice"[..], b":alice", b"-1:alice", b"+1:a", b"99999999999999999999999:a", b""] {
            assert_eq!(split_expiry(bad), None);
        }
    }

    /// The identity of each live allocation.
    fn identities(relay: &Relay) -> Vec<Arc<Identity>> {
        relay.server.allocations.iter().flatten().map(|allocation| allocation.identity.clone()).collect()
    }

    #[test]
    fn a_key_is_derived_once_for_all_allocations_of_the_same_credentials() {
        let mut relay = Relay::new();
        let client = |port: u16| Client::new(&format!("203.0.113.7:{port}"));
        client(1).allocated(&mut relay);
        client(2).allocated(&mut relay);
        let mut limited = client(3).limited("1700003600:alice", "first secret");
        limited.allocated(&mut relay);
        client(4).proving(Proof::MODERN).allocated(&mut relay);
        let all = identities(&relay);
        assert!(Arc::ptr_eq(&all[0], &all[1]));
        assert!(!Arc::ptr_eq(&all[0], &all[2]) && !Arc::ptr_eq(&all[0], &all[3]));
        // It outlives the allocations, for a while.
        limited.refresh(&mut relay, 0);
        limited.allocated(&mut relay);
        assert!(Arc::ptr_eq(&all[2], &identities(&relay)[2]));
        relay.configure(options());
        client(5).allocated(&mut relay);
        assert!(!Arc::ptr_eq(&all[0], &identities(&relay)[4]), "other settings, other keys");
    }

    #[test]
    fn a_kept_key_does_not_outlive_its_name_and_is_no_one_elses() {
        let mut relay = Relay::new();
        let client = |port: u16| Client::new(&format!("203.0.113.7:{port}"));
        let limited = |port, secret| client(port).limited("1700000060:alice", secret);
        limited(1, "first secret").allocated(&mut relay);
        limited(2, "second secret").allocated(&mut relay);
        let all = identities(&relay);
        assert!(!Arc::ptr_eq(&all[0], &all[1]), "each secret makes its password");
        let mut wrong = limited(3, "a wrong secret");
        wrong.challenge(&mut relay);
        let request = wrong.signed(Method::ALLOCATE, udp);
        assert_eq!(wrong.answer_to(&mut relay, &request).code(), 401);
        relay.pass(Duration::from_secs(60));
        let mut late = limited(4, "second secret");
        late.challenge(&mut relay);
        let request = late.signed(Method::ALLOCATE, udp);
        assert_eq!(late.answer_to(&mut relay, &request).code(), 401);
    }

    #[test]
    fn names_that_nobody_uses_are_forgotten() {
        let mut relay = Relay::new();
        let mut client = Client::new("203.0.113.7:1");
        client.allocated(&mut relay);
        client.refresh(&mut relay, 0);
        let kept = |relay: &Relay| relay.server.auth.kept.places.iter().flatten().count();
        assert_eq!(kept(&relay), 1);
        relay.pass(KEPT_CREDENTIALS_LIFETIME);
        let mut other = Client::new("203.0.113.7:2").named("eve", "apple");
        other.challenge(&mut relay);
        for _ in 0..KEPT_CREDENTIALS {
            let request = other.signed(Method::REFRESH, |_| {});
            other.answer_to(&mut relay, &request);
        }
        assert_eq!(kept(&relay), 1);
    }
}
