//! A writer of small databases, for tests. See <https://maxmind.github.io/MaxMind-DB/>.

use std::net::IpAddr;

use crate::database::Place;

/// The end of the search tree.
const SEPARATOR: [u8; 16] = [0; 16];
const METADATA_MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// A database in the making, of IPv6 networks; IPv4 ones stand below `::/96`.
#[derive(Debug)]
pub struct Writer {
    nodes: Vec<[Record; 2]>,
    data: Vec<u8>,
    built_unix_seconds: u64,
}

#[derive(Clone, Copy, Debug)]
enum Record {
    Nothing,
    Node(u32),
    Data(u32),
}

impl Writer {
    /// One that says it was built then.
    pub fn new(built_unix_seconds: u64) -> Self {
        Writer { nodes: vec![[Record::Nothing; 2]], data: Vec::new(), built_unix_seconds }
    }

    /// Says where a network is. Networks may not overlap.
    pub fn insert(&mut self, network: IpAddr, prefix_bits: u8, place: &Place) {
        let (bits, length) = match network {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), 96 + u32::from(prefix_bits)),
            IpAddr::V6(ip) => (ip.to_bits(), u32::from(prefix_bits)),
        };
        let data = Record::Data(self.data.len() as u32);
        write_place(&mut self.data, place);
        let mut node = 0;
        for depth in 0..length {
            let side = (bits >> (127 - depth) & 1) as usize;
            if depth + 1 == length {
                self.nodes[node][side] = data;
                return;
            }
            node = match self.nodes[node][side] {
                Record::Node(next) => next as usize,
                Record::Nothing | Record::Data(_) => self.grow(node, side),
            };
        }
    }

    /// The database.
    pub fn bytes(&self) -> Vec<u8> {
        let nodes = self.nodes.len() as u32;
        let value = |record: &Record| match record {
            Record::Nothing => nodes,
            Record::Node(next) => *next,
            Record::Data(offset) => nodes + SEPARATOR.len() as u32 + offset,
        };
        let records = self.nodes.iter().flatten();
        let mut bytes: Vec<u8> = records.flat_map(|record| value(record).to_be_bytes()).collect();
        bytes.extend(SEPARATOR);
        bytes.extend(&self.data);
        bytes.extend(METADATA_MARKER);
        self.write_metadata(&mut bytes, nodes);
        bytes
    }

    fn grow(&mut self, node: usize, side: usize) -> usize {
        let next = self.nodes.len();
        self.nodes.push([Record::Nothing; 2]);
        self.nodes[node][side] = Record::Node(next as u32);
        next
    }

    fn write_metadata(&self, bytes: &mut Vec<u8>, nodes: u32) {
        write_control(bytes, Type::Map, 9);
        for (key, value) in [
            ("binary_format_major_version", 2),
            ("binary_format_minor_version", 0),
            ("ip_version", 6),
            ("record_size", 32),
        ] {
            write_text(bytes, key);
            write_control(bytes, Type::Uint16, 2);
            bytes.extend(u16::to_be_bytes(value));
        }
        write_text(bytes, "node_count");
        write_u32(bytes, nodes);
        write_text(bytes, "build_epoch");
        write_control(bytes, Type::Uint64, 8);
        bytes.extend(self.built_unix_seconds.to_be_bytes());
        write_text(bytes, "database_type");
        write_text(bytes, "Test-City");
        write_text(bytes, "description");
        write_control(bytes, Type::Map, 0);
        write_text(bytes, "languages");
        write_control(bytes, Type::Array, 0);
    }
}

/// The types of the format that are written here.
#[derive(Clone, Copy)]
enum Type {
    Text = 2,
    Uint16 = 5,
    Uint32 = 6,
    Map = 7,
    Uint64 = 9,
    Array = 11,
}

fn write_place(bytes: &mut Vec<u8>, place: &Place) {
    let fields = [place.country.is_some(), place.subdivision.is_some(), place.asn.is_some()];
    write_control(bytes, Type::Map, fields.iter().filter(|is_there| **is_there).count());
    if let Some(country) = &place.country {
        write_text(bytes, "country");
        write_code(bytes, country);
    }
    if let Some(subdivision) = &place.subdivision {
        write_text(bytes, "subdivisions");
        write_control(bytes, Type::Array, 1);
        write_code(bytes, subdivision.split_once('-').map_or(subdivision, |(_, part)| part));
    }
    if let Some(asn) = place.asn {
        write_text(bytes, "autonomous_system_number");
        write_u32(bytes, asn);
    }
}

fn write_code(bytes: &mut Vec<u8>, code: &str) {
    write_control(bytes, Type::Map, 1);
    write_text(bytes, "iso_code");
    write_text(bytes, code);
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    write_control(bytes, Type::Text, text.len());
    bytes.extend(text.as_bytes());
}

fn write_u32(bytes: &mut Vec<u8>, value: u32) {
    write_control(bytes, Type::Uint32, 4);
    bytes.extend(value.to_be_bytes());
}

/// Type and size of what follows; sizes here are below 29.
fn write_control(bytes: &mut Vec<u8>, kind: Type, size: usize) {
    let (number, size) = (kind as u8, size as u8);
    match number {
        1..8 => bytes.push(number << 5 | size),
        _ => bytes.extend([size, number - 7]),
    }
}
