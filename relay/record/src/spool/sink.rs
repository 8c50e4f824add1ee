//! Where the spool's lines go.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hyper::Uri;

use super::files::{FileWriter, Purpose};
use super::http;
use super::segments::Batch;

/// A sink.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SinkOptions {
    /// Lines are added to a file, which is made where it is not there. It is opened anew when another one has its name:
    /// whoever rotates it moves it away.
    File {
        /// An absolute path.
        path: PathBuf,
    },
    /// Lines are sent by POST, a batch in each request.
    Http {
        /// Where to: `http://HOST[:PORT]/PATH`, without a user, a query or a fragment.
        url: String,
        /// Whether it may be another machine, which anybody between can listen to.
        allow_plaintext: bool,
    },
}

impl SinkOptions {
    /// Whether this version can send there.
    ///
    /// # Errors
    /// What is wrong and what to do, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        match self {
            SinkOptions::File { path } if !path.is_absolute() => Err("path has to begin with /".to_owned()),
            SinkOptions::File { path } if path.file_name().is_none() => Err("path has to name a file".to_owned()),
            SinkOptions::File { .. } => Ok(()),
            SinkOptions::Http { url, allow_plaintext } => Target::parse(url, *allow_plaintext).map(drop),
        }
    }

    /// Its kind, as the configuration calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            SinkOptions::File { .. } => "file",
            SinkOptions::Http { .. } => "http",
        }
    }

    /// What it is called in the file of progress.
    pub(crate) fn id(&self) -> String {
        match self {
            SinkOptions::File { path } => format!("file:{}", path.display()),
            SinkOptions::Http { url, .. } => format!("http:{url}"),
        }
    }
}

/// Where requests go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As it stands in the Host field.
    pub(crate) authority: String,
    pub(crate) path: String,
}

impl Target {
    /// Reads a URL, and refuses what this version would not keep safe.
    pub(crate) fn parse(url: &str, allow_plaintext: bool) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("url is none: {error}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(
                    "url: https:// is not built yet; send to http:// on this machine, to a program that passes \
                            records on encrypted, or write to a file"
                        .to_owned(),
                );
            }
            _ => return Err("url has to begin with http://".to_owned()),
        }
        let authority = uri.authority().ok_or("url has no host")?;
        if authority.as_str().contains('@') || uri.query().is_some() || url.contains('#') {
            return Err("url may have no user, no query and no fragment: it is kept in the state directory".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if !is_here(&host) && !allow_plaintext {
            return Err("url: http:// to another machine can be read on the way: send to this machine \
                        (127.0.0.1, ::1, localhost), or set allow_plaintext = true"
                .to_owned());
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Target { host, port, authority: authority.as_str().to_owned(), path: uri.path().to_owned() })
    }
}

fn is_here(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A sink at work.
pub(crate) enum Sink<F: FileWriter> {
    File(Tail<F>),
    Http { target: Target, node: String },
}

impl<F: FileWriter> Sink<F> {
    /// A sink of checked options; `node` is what receivers know this relay by.
    pub(crate) fn new(options: &SinkOptions, files: F, node: &str) -> Result<Self, String> {
        Ok(match options {
            SinkOptions::File { path } => Sink::File(Tail { files, path: path.clone(), open: None }),
            SinkOptions::Http { url, allow_plaintext } => {
                Sink::Http { target: Target::parse(url, *allow_plaintext)?, node: node.to_owned() }
            }
        })
    }

    /// Hands a batch over; when it returns well, the receiver has it for good.
    pub(crate) async fn deliver(&mut self, batch: &Batch) -> Result<(), String> {
        match self {
            Sink::File(tail) => tail.deliver(&batch.body).await.map_err(|error| error.to_string()),
            Sink::Http { target, node } => http::post(target, node, batch).await,
        }
    }
}

/// A file that lines are added to.
pub(crate) struct Tail<F: FileWriter> {
    files: F,
    path: PathBuf,
    open: Option<(F::File, Identity)>,
}

/// Which file has a name: device and inode.
type Identity = (u64, u64);

impl<F: FileWriter> Tail<F> {
    async fn deliver(&mut self, body: &str) -> io::Result<()> {
        let at_path = existing(&self.path)?;
        if self.open.as_ref().map(|(_, identity)| *identity) != at_path.map(|(identity, _)| identity) {
            self.open = None;
        }
        let (file, identity) = match self.open.take() {
            Some(open) => open,
            None => self.open().await?,
        };
        // Where this breaks off the file stays closed, and is looked at again when it is opened.
        let length = std::fs::metadata(&self.path)?.len();
        let written = async {
            self.files.write(&file, body.as_bytes(), length).await?;
            self.files.sync(&file).await
        };
        if let Err(error) = written.await {
            let _ = self.files.cut(&file, length);
            return Err(error);
        }
        self.open = Some((file, identity));
        Ok(())
    }

    /// Opens it; a line without an end, left by a crash, is given one, so that the next one is whole.
    async fn open(&self) -> io::Result<(F::File, Identity)> {
        let file = self.files.open(&self.path, Purpose::Share)?;
        let (identity, length) = existing(&self.path)?.ok_or(io::ErrorKind::NotFound)?;
        if length > 0 && self.files.read(&file, 1, length - 1).await? != b"\n" {
            self.files.write(&file, b"\n", length).await?;
        }
        Ok((file, identity))
    }
}

/// What has a name, and its length. A pipe or a device there is refused: opening it could wait for ever.
fn existing(path: &Path) -> io::Result<Option<(Identity, u64)>> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(io::Error::other("it is not a file")),
        Ok(found) => Ok(Some(((found.dev(), found.ino()), found.len()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
