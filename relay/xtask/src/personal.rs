//! Looks for the people of the tests in what a server has shown: their addresses in every usual form,
//! their names, their secrets.

use std::net::IpAddr;

use crate::{clients, nat, netns, shell};

/// Finds none of them, or says where.
pub(crate) fn none_in(text: &str) -> Result<(), String> {
    let folded = text.to_lowercase();
    let mut found: Vec<String> = Vec::new();
    for needle in needles() {
        if let Some(at) = folded.find(&needle) {
            let start = folded[..at].rfind('\n').map_or(0, |i| i + 1);
            let line = folded[start..].lines().next().unwrap_or_default();
            found.push(format!("{needle}, in: {}", line.chars().take(200).collect::<String>()));
        }
    }
    if found.is_empty() {
        println!("      looked for {} forms in {} bytes", needles().len(), text.len());
        return Ok(());
    }
    Err(format!("the output tells of people:\n{}", shell::tail(&found.join("\n"), 20)))
}

/// Every form of everybody, in lower case.
fn needles() -> Vec<String> {
    // Whatever comes from these networks, whether a test used it or not.
    let mut needles = vec!["127.66.".to_owned(), "fd66:6666".to_owned(), "198.51.100.".to_owned()];
    let outside = [nat::ONE, nat::OTHER].into_iter().flat_map(|o| [o.v4, o.v6]).filter_map(|text| text.parse().ok());
    needles.extend(netns::personal_addresses().into_iter().chain(outside).flat_map(forms));
    needles.extend(
        clients::PERSONAL_NAMES
            .iter()
            .chain(clients::SECRETS)
            .flat_map(|name| [name.to_lowercase(), hex(name.as_bytes()), listed(name.as_bytes())]),
    );
    needles.sort_unstable();
    needles.dedup();
    needles
}

/// Forms of one address: dotted or grouped, hexadecimal in both orders, as a list of bytes, as one number,
/// and as XOR-MAPPED-ADDRESS has it (RFC 8489, 14.2; its first four bytes need no transaction id).
fn forms(ip: IpAddr) -> Vec<String> {
    const COOKIE: u32 = 0x2112_a442;
    match ip {
        IpAddr::V4(ip) => {
            let bytes = ip.octets();
            let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
            let number = ip.to_bits();
            let separate = bytes.map(|b| format!("{b:02x}"));
            vec![
                ip.to_string(),
                hex(&bytes),
                hex(&reversed),
                separate.join(":"),
                separate.join(" "),
                listed(&bytes),
                number.to_string(),
                hex(&(number ^ COOKIE).to_be_bytes()),
                format!("::ffff:{:x}:{:x}", number >> 16, number & 0xffff),
            ]
        }
        IpAddr::V6(ip) => {
            let bytes = ip.octets();
            let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
            let groups = ip.segments().map(|group| format!("{group:04x}")).join(":");
            vec![ip.to_string(), groups, hex(&bytes), hex(&reversed), listed(&bytes), ip.to_bits().to_string()]
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As `{:?}` shows an array of bytes.
fn listed(bytes: &[u8]) -> String {
    format!("{bytes:?}").trim_matches(&['[', ']'][..]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found() {
        for shown in [
            "from 127.66.200.1:4000",
            "from 7F420102",
            "peer Some([127, 66, 1, 2])",
            "ip=2135032066",
            "FD66:6666:0000:0000:0000:0000:0001:0005",
            "user Zelda-Static",
            "0x5e50a540",
            "::ffff:7f42:102",
        ] {
            assert!(none_in(&format!("a\n{shown}\nb")).is_err(), "{shown}");
        }
    }

    #[test]
    fn the_relays_own_addresses_may_be_shown() {
        assert!(none_in("listening on 127.0.0.1:3478 and [::1]:3478, peers on fd00::1").is_ok());
    }
}
