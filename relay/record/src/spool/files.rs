//! How bytes come to a disk and back: by io_uring, or by plain calls where that is refused.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::rc::Rc;

use sluice_base::limits;
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::buf::fixed::{FixedBuf, FixedBufRegistry};

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// A new one, for the relay alone.
    New,
    /// One that is there, to be read.
    Read,
    /// One that is there.
    Change,
    /// One that others read, which may be there; whatever is written goes to its end.
    Share,
}

/// Positional files. What is opened is opened by a system call, so that the sandbox sees it; what moves bytes or waits
/// for the disk is the writer's own.
pub(crate) trait FileWriter: Clone + 'static {
    /// An open file.
    type File;

    /// Takes over a file that is open.
    ///
    /// # Errors
    /// The kernel's.
    fn adopt(&self, file: File) -> io::Result<Self::File>;

    /// Writes all of `bytes` from position `at` on.
    ///
    /// # Errors
    /// The kernel's; some of the bytes may have been written.
    async fn write(&self, file: &Self::File, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Reads `length` bytes from position `at` on; fewer where the file ends.
    ///
    /// # Errors
    /// The kernel's.
    async fn read(&self, file: &Self::File, length: usize, at: u64) -> io::Result<Vec<u8>>;

    /// Returns when what was written is on the disk.
    ///
    /// # Errors
    /// The kernel's.
    async fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Makes it `length` bytes long.
    ///
    /// # Errors
    /// The kernel's.
    fn cut(&self, file: &Self::File, length: u64) -> io::Result<()>;

    /// Opens a file.
    ///
    /// # Errors
    /// The kernel's.
    fn open(&self, path: &Path, purpose: Purpose) -> io::Result<Self::File> {
        self.adopt(open(path, purpose)?)
    }
}

fn open(path: &Path, purpose: Purpose) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    match purpose {
        Purpose::New => options.write(true).create_new(true).mode(0o600),
        Purpose::Read => &mut options,
        Purpose::Change => options.write(true),
        Purpose::Share => options.append(true).create(true).mode(0o640),
    };
    options.open(path)
}

/// Plain calls; they hold up the thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;

impl FileWriter for Plain {
    type File = File;

    fn adopt(&self, file: File) -> io::Result<File> {
        Ok(file)
    }

    async fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    async fn read(&self, file: &File, length: usize, at: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut bytes[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    async fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }
}

/// tokio-uring; only inside of its runtime. What is written goes through buffers that the ring knows, where one is
/// free.
#[derive(Clone)]
pub(crate) struct Ring {
    /// None where the kernel did not register them (RLIMIT_MEMLOCK).
    buffers: Option<Rc<FixedBufRegistry<Vec<u8>>>>,
}

/// A file of [`Ring`].
pub(crate) struct RingFile {
    ring: tokio_uring::fs::File,
    /// The same file, for what tokio-uring does not have.
    plain: File,
}

impl Ring {
    /// Registers its buffers.
    pub(crate) fn new() -> Self {
        let buffers = (0..limits::SPOOL_BUFFERS).map(|_| Vec::with_capacity(limits::SPOOL_BUFFER_BYTES));
        let registry = FixedBufRegistry::new(buffers);
        Ring { buffers: registry.register().is_ok().then(|| Rc::new(registry)) }
    }

    fn buffer(&self) -> Option<FixedBuf> {
        let buffers = self.buffers.as_ref()?;
        (0..limits::SPOOL_BUFFERS).find_map(|index| buffers.check_out(index))
    }
}

impl FileWriter for Ring {
    type File = RingFile;

    fn adopt(&self, file: File) -> io::Result<RingFile> {
        let plain = file.try_clone()?;
        Ok(RingFile { ring: tokio_uring::fs::File::from_std(file), plain })
    }

    async fn write(&self, file: &RingFile, bytes: &[u8], at: u64) -> io::Result<()> {
        let Some(mut buffer) = self.buffer() else {
            return file.ring.write_all_at(bytes.to_vec(), at).await.0;
        };
        let mut at = at;
        for piece in bytes.chunks(limits::SPOOL_BUFFER_BYTES) {
            buffer = fill(buffer, piece);
            let (written, slice) = file.ring.write_fixed_all_at(buffer.slice(..piece.len()), at).await;
            written?;
            buffer = slice.into_inner();
            at += piece.len() as u64;
        }
        Ok(())
    }

    async fn read(&self, file: &RingFile, length: usize, at: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let filled = bytes.len();
            let slice = bytes.slice(filled..length);
            let (read, slice) = file.ring.read_at(slice, at + filled as u64).await;
            bytes = slice.into_inner();
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    async fn sync(&self, file: &RingFile) -> io::Result<()> {
        file.ring.sync_all().await
    }

    fn cut(&self, file: &RingFile, length: u64) -> io::Result<()> {
        file.plain.set_len(length)
    }
}

/// Puts `bytes` at the start of a buffer.
fn fill(mut buffer: FixedBuf, bytes: &[u8]) -> FixedBuf {
    use tokio_uring::buf::BoundedBufMut as _;
    buffer.put_slice(bytes);
    buffer
}
