//! A relay under test: started with a configuration, waited for, asked, and stopped in order.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::shell;

/// How long a relay may take to answer its first Binding request.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long one Binding request waits for its answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(100);

/// How long a relay may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How long its HTTP listener may take to answer.
const HTTP_LIMIT: Duration = Duration::from_secs(5);

/// A running relay. It is ended when this is dropped, and in order by [`Server::stop`].
#[derive(Debug)]
pub(crate) struct Server {
    pid: u32,
    exited: Receiver<std::io::Result<ExitStatus>>,
    log: PathBuf,
    ended: bool,
}

impl Server {
    /// Starts a program, all of whose output goes to `log`, and waits until it answers Binding
    /// requests at `address`.
    pub(crate) fn start(command: &mut Command, log: &Path, address: SocketAddr) -> Result<Self, String> {
        let file = File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = file.try_clone().map_err(|e| e.to_string())?;
        let program = command.get_program().to_string_lossy().into_owned();
        let spawned = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        let mut child = spawned.map_err(|e| format!("{program}: {e}"))?;
        let pid = child.id();
        let (sender, exited) = channel();
        std::thread::spawn(move || sender.send(child.wait()));
        let mut server = Server { pid, exited, log: log.to_owned(), ended: false };
        server.wait_until_ready(address)?;
        Ok(server)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// All that it has said so far.
    pub(crate) fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks it to stop, and expects that it does so well.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        self.signal("TERM")?;
        self.ends_well(STOP_LIMIT)
    }

    /// Aborts it, and waits for its end.
    pub(crate) fn abort(&self) -> Result<ExitStatus, String> {
        self.signal("ABRT")?;
        let ended = self.exited.recv_timeout(STOP_LIMIT);
        ended.map_err(|_| self.complaint("does not end when it is aborted"))?.map_err(|e| e.to_string())
    }

    fn wait_until_ready(&mut self, address: SocketAddr) -> Result<(), String> {
        let end = Instant::now() + START_LIMIT;
        while Instant::now() < end {
            if answers_binding(address) {
                return Ok(());
            }
            // Its end is the event that is worth waking up for.
            match self.exited.recv_timeout(ANSWER_LIMIT / 2) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Ok(status)) => {
                    self.ended = true;
                    return Err(self.complaint(&format!("ended at its start with {status}")));
                }
                Ok(Err(e)) => return Err(e.to_string()),
                Err(RecvTimeoutError::Disconnected) => return Err("the server's end was missed".to_owned()),
            }
        }
        Err(self.complaint(&format!("did not answer a Binding request within {} s", START_LIMIT.as_secs())))
    }

    /// What went wrong, and the last that it said.
    fn complaint(&self, what: &str) -> String {
        format!("the server {what}; it said:\n{}", shell::tail(&self.output(), 15))
    }

    /// Waits until it ends by itself, and expects that it does so well.
    pub(crate) fn ends_well(&mut self, limit: Duration) -> Result<(), String> {
        match self.exited.recv_timeout(limit) {
            Ok(Ok(status)) => {
                self.ended = true;
                if status.success() { Ok(()) } else { Err(self.complaint(&format!("ended with {status}"))) }
            }
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(self.complaint(&format!("still runs after {} s", limit.as_secs()))),
        }
    }

    /// Sends it a signal, by its name without SIG.
    pub(crate) fn signal(&self, name: &str) -> Result<(), String> {
        let mut kill = Command::new("sh");
        kill.args(["-c", &format!("kill -{name} {}", self.pid)]);
        shell::capture(&mut kill)?.ok("kill").map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.ended && self.signal("KILL").is_ok() {
            let _ = self.exited.recv_timeout(STOP_LIMIT);
        }
    }
}

/// Whether a server answers a Binding request (RFC 8489, 3) right now.
pub(crate) fn answers_binding(address: SocketAddr) -> bool {
    const SUCCESS: [u8; 2] = [0x01, 0x01];
    let ask = || -> std::io::Result<bool> {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut request = [0; 20];
        request[..8].copy_from_slice(&[0x00, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        request[8..].copy_from_slice(b"are you here");
        socket.send(&request)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        Ok(length >= 20 && answer[..2] == SUCCESS && answer[8..20] == request[8..])
    };
    ask().unwrap_or(false)
}

/// A free UDP port of an address. In a namespace of our own nobody takes it meanwhile.
pub(crate) fn free_udp_port(ip: &str) -> Result<u16, String> {
    let address: std::net::IpAddr = ip.parse().map_err(|e| format!("{ip}: {e}"))?;
    let socket = UdpSocket::bind((address, 0)).map_err(|e| format!("{ip}: {e}"))?;
    socket.local_addr().map(|a| a.port()).map_err(|e| e.to_string())
}

/// The body of `GET path`, when its status is 200.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, HTTP_LIMIT)?;
        stream.set_read_timeout(Some(HTTP_LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|e| format!("GET {path}: {e}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("GET {path}: no HTTP answer"))?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        return Err(format!("GET {path}: {status}"));
    }
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok(if chunked { unchunked(body) } else { body.to_owned() })
}

/// Joins the chunks of an HTTP/1.1 body (RFC 9112, 7.1).
fn unchunked(body: &str) -> String {
    let mut joined = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = after.get(..length).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        joined.push_str(chunk);
        rest = after[length..].trim_start_matches("\r\n");
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunked("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "abcde");
    }

    #[test]
    fn an_early_end_is_told_with_the_last_words() {
        let log = std::env::temp_dir().join(format!("sluice-xtask-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such listener; exit 3"]);
        let error = Server::start(&mut command, &log, "127.0.0.1:9".parse().unwrap()).unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("no such listener"), "{error}");
        std::fs::remove_file(log).unwrap();
    }
}
