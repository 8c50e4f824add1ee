//! Whom a probe asks: a TURN URI (RFC 7065, 3.1).

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Where a relay listens that names no port (RFC 7065, 3.2).
const PORT: u16 = 3478;

/// `turn:host[:port][?transport=udp]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TurnUri {
    host: String,
    port: u16,
}

impl TurnUri {
    /// The addresses of the host, in the resolver's order.
    pub(super) async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        tokio::net::lookup_host((self.host.as_str(), self.port)).await.map(Iterator::collect)
    }

    /// Its UDP port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for TurnUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "turn:[{}]:{}", self.host, self.port),
            false => write!(f, "turn:{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for TurnUri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once(':').ok_or("a TURN URI begins with `turn:`, as turn:relay.example:3478")?;
        match scheme.to_ascii_lowercase().as_str() {
            "turn" => {}
            "turns" => return Err("turns: is TURN over TLS or DTLS, which the probe does not speak yet".to_owned()),
            "stun" | "stuns" => return Err("a STUN server relays nothing: name a TURN server by `turn:`".to_owned()),
            _ => return Err(format!("`{scheme}:` is no TURN URI: it begins with `turn:`, as turn:relay.example:3478")),
        }
        if rest.starts_with("//") {
            return Err("a TURN URI has no `//` (RFC 7065): turn:relay.example:3478".to_owned());
        }
        let (authority, query) = rest.split_once('?').map_or((rest, None), |(a, q)| (a, Some(q)));
        query.map_or(Ok(()), transport)?;
        let (host, port) = host_and_port(authority)?;
        Ok(TurnUri { host, port: port.map_or(Ok(PORT), port_number)? })
    }
}

fn transport(query: &str) -> Result<(), String> {
    match query.strip_prefix("transport=") {
        Some("udp") => Ok(()),
        Some("tcp") => Err("transport=tcp: the probe does not speak TURN over TCP yet".to_owned()),
        _ => Err(format!("`?{query}`: a TURN URI ends with ?transport=udp or with nothing")),
    }
}

fn host_and_port(authority: &str) -> Result<(String, Option<&str>), String> {
    if authority.contains('@') {
        return Err("a TURN URI has no user: give the name by -u".to_owned());
    }
    let (host, rest) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("an IPv6 address ends with `]`, as turn:[::1]:3478")?;
            host.parse::<Ipv6Addr>().map_err(|_| format!("`{host}` is no IPv6 address"))?;
            (host, rest)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(port),
        None if rest.is_empty() => None,
        None => return Err(format!("`{rest}` stands behind the address: a port follows a colon")),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err("an IPv6 address stands in brackets, as turn:[::1]:3478".to_owned());
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._~:".contains(c);
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(format!("`{host}` is no host: a name or an address, as turn:relay.example:3478"));
    }
    Ok((host.to_owned(), port))
}

fn port_number(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 && text.chars().all(|c| c.is_ascii_digit()) => Ok(port),
        _ => Err(format!("`{text}` is no port: a number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        text.parse::<TurnUri>().map(|uri| uri.to_string())
    }

    #[test]
    fn what_the_rfc_allows_over_udp_is_taken() {
        for (given, shown) in [
            ("turn:relay.example", "turn:relay.example:3478"),
            ("TURN:relay.example:443?transport=udp", "turn:relay.example:443"),
            ("turn:192.0.2.1:1", "turn:192.0.2.1:1"),
            ("turn:[2001:db8::1]", "turn:[2001:db8::1]:3478"),
            ("turn:[::1]:65535", "turn:[::1]:65535"),
        ] {
            assert_eq!(read(given).as_deref(), Ok(shown), "{given}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_word_on_it() {
        for (given, word) in [
            ("relay.example", "begins with `turn:`"),
            ("https:relay.example", "begins with `turn:`"),
            ("turns:relay.example", "TLS"),
            ("stun:relay.example", "STUN"),
            ("turn://relay.example", "`//`"),
            ("turn:relay.example?transport=tcp", "TCP"),
            ("turn:relay.example?transport=sctp", "?transport=udp"),
            ("turn:u@relay.example", "-u"),
            ("turn:::1", "brackets"),
            ("turn:[::1", "`]`"),
            ("turn:[::1]3478", "colon"),
            ("turn:[relay]:1", "no IPv6 address"),
            ("turn:", "no host"),
            ("turn:relay example", "no host"),
            ("turn:relay.example:", "no port"),
            ("turn:relay.example:0", "no port"),
            ("turn:relay.example:+1", "no port"),
            ("turn:relay.example:65536", "no port"),
        ] {
            let refusal = read(given).unwrap_err();
            assert!(refusal.contains(word), "{given}: {refusal}");
        }
    }
}
