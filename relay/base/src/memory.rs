//! Keys in memory that is not written to a disk.

use std::fmt;

/// 32 bytes in locked memory, overwritten with zeros when it is dropped.
pub trait KeyCell: Send + Sync {
    /// The key.
    fn bytes(&self) -> &[u8; 32];
}

impl fmt::Debug for dyn KeyCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

/// Whoever has such memory.
pub trait KeyCells: Send + Sync {
    /// Puts a key into a cell of its own. The caller overwrites what copies it has.
    ///
    /// # Errors
    /// The kernel gives or locks no memory.
    fn cell(&self, bytes: [u8; 32]) -> Result<Box<dyn KeyCell>, std::io::Error>;
}
