//! Types of attributes. Below 0x8000 an agent must understand it or refuse (RFC 8489, 14).

/// RFC 8489, 14.1.
pub const MAPPED_ADDRESS: u16 = 0x0001;
/// RFC 8489, 14.3.
pub const USERNAME: u16 = 0x0006;
/// RFC 8489, 14.5.
pub const MESSAGE_INTEGRITY: u16 = 0x0008;
/// RFC 8489, 14.8.
pub const ERROR_CODE: u16 = 0x0009;
/// RFC 8489, 14.13.
pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
/// RFC 8656, 18.1.
pub const CHANNEL_NUMBER: u16 = 0x000c;
/// RFC 8656, 18.2.
pub const LIFETIME: u16 = 0x000d;
/// RFC 8656, 18.3.
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
/// RFC 8656, 18.4.
pub const DATA: u16 = 0x0013;
/// RFC 8489, 14.9.
pub const REALM: u16 = 0x0014;
/// RFC 8489, 14.10.
pub const NONCE: u16 = 0x0015;
/// RFC 8656, 18.5.
pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
/// RFC 8656, 18.6.
pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
/// RFC 8656, 18.7.
pub const EVEN_PORT: u16 = 0x0018;
/// RFC 8656, 18.8.
pub const REQUESTED_TRANSPORT: u16 = 0x0019;
/// RFC 8656, 18.9.
pub const DONT_FRAGMENT: u16 = 0x001a;
/// RFC 8489, 14.6.
pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
/// RFC 8489, 14.12.
pub const PASSWORD_ALGORITHM: u16 = 0x001d;
/// RFC 8489, 14.4.
pub const USERHASH: u16 = 0x001e;
/// RFC 8489, 14.2.
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// RFC 8656, 18.10.
pub const RESERVATION_TOKEN: u16 = 0x0022;
/// RFC 8445, 16.1.
pub const PRIORITY: u16 = 0x0024;
/// RFC 8445, 16.1.
pub const USE_CANDIDATE: u16 = 0x0025;
/// RFC 8656, 18.11.
pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
/// The same before RFC 8656 fixed its number: coturn's client sends this one (`turnutils_uclient -Z`).
pub const ADDITIONAL_ADDRESS_FAMILY_OF_COTURN: u16 = 0x8032;
/// RFC 8656, 18.12.
pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
/// RFC 8489, 14.11.
pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
/// RFC 8489, 14.16.
pub const ALTERNATE_DOMAIN: u16 = 0x8003;
/// RFC 8656, 18.13.
pub const ICMP: u16 = 0x8004;
/// RFC 8489, 14.14.
pub const SOFTWARE: u16 = 0x8022;
/// RFC 8489, 14.15.
pub const ALTERNATE_SERVER: u16 = 0x8023;
/// RFC 8489, 14.7.
pub const FINGERPRINT: u16 = 0x8028;
/// RFC 8445, 16.1.
pub const ICE_CONTROLLED: u16 = 0x8029;
/// RFC 8445, 16.1.
pub const ICE_CONTROLLING: u16 = 0x802a;

/// An agent that does not know it must refuse the request (RFC 8489, 14).
pub const fn comprehension_required(attribute: u16) -> bool {
    attribute < 0x8000
}
