//! The built binary on free ports, ended when dropped; and small HTTP/1.1 helpers over sockets.

use crate::accounts::Accounts;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Far longer than anything takes: a test that waits this long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A child process that ends with the test.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// Before the process: they are looked at while it runs.
    pub(crate) accounts: Accounts,
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Files that it was started from.
    pub(crate) folder: Option<tempfile::TempDir>,
}

/// A port that is free, outside the range that outgoing connections take theirs from. The UDP port
/// of the same number is kept while the test binary runs, so that no other run takes it meanwhile.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 1_000) as u16 * 12;
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (begin.wrapping_add(next)) % 12_000;
        let Ok(reserved) = UdpSocket::bind(("127.0.0.1", port)) else {
            continue;
        };
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            std::mem::forget(reserved);
            return listener.local_addr().unwrap();
        }
    }
}

/// The binary of this build, or the one that `PENSTOCK_BINARY` names.
pub(crate) fn binary() -> OsString {
    let named = std::env::var_os("PENSTOCK_BINARY");
    named.unwrap_or(env!("CARGO_BIN_EXE_penstock").into())
}

pub(crate) fn penstock(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).stdin(Stdio::null());
    command
}

impl Gateway {
    /// `penstock run ARGS` with its own addresses, once it is ready.
    pub(crate) fn run(args: &[&str]) -> Self {
        let (address, admin) = (free_address(), free_address());
        let (listen, admin_text) = (address.to_string(), admin.to_string());
        let mut all = vec!["run", "--listen", &listen, "--admin", &admin_text];
        if !args.contains(&"--workers") {
            all.extend(["--workers", "1"]);
        }
        all.extend_from_slice(args);
        let mut command = penstock(&all);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self::started(&mut command, address, admin)
    }

    /// What `command` starts, once it is ready.
    pub(crate) fn started(command: &mut Command, address: SocketAddr, admin: SocketAddr) -> Self {
        let gateway = Self {
            accounts: Accounts::of(command, admin),
            process: Running(command.spawn().unwrap()),
            address,
            admin,
            folder: None,
        };
        wait_until(|| get(admin, "/readyz").is_some_and(|answer| answer.status == 200));
        gateway
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.0.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Its exit code, once it has ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.process.0.wait().unwrap().code()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// In front of these servers.
    pub(crate) fn before(servers: &[SocketAddr]) -> Self {
        let urls: Vec<String> = servers
            .iter()
            .map(|server| format!("http://{server}"))
            .collect();
        let args: Vec<&str> = urls
            .iter()
            .flat_map(|url| ["--endpoint", url.as_str()])
            .collect();
        Self::run(&args)
    }
}

/// `penstock mock ARGS` on a free port, once it answers.
pub(crate) fn mock(args: &[&str]) -> (Running, SocketAddr) {
    let address = free_address();
    let listen = address.to_string();
    let mut all = vec!["mock", "--listen", &listen];
    all.extend_from_slice(args);
    let child = penstock(&all)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    wait_until(|| TcpStream::connect(address).is_ok());
    (running, address)
}

/// Lets the threads of a drill go on until it ends, however it does: one that fails would wait for
/// them.
pub(crate) struct Ends<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[track_caller]
pub(crate) fn wait_until(done: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !done() {
        assert!(
            Instant::now() < until,
            "it did not happen within {DEADLINE:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A response, body taken off its framing.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    read_answer(&mut BufReader::new(stream))
}

pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> Answer {
    post_with(address, path, body, &[])
}

pub(crate) fn post_with(
    address: SocketAddr,
    path: &str,
    body: &str,
    fields: &[(&str, &str)],
) -> Answer {
    let mut stream = connect(address);
    stream
        .write_all(request(path, body, fields).as_bytes())
        .unwrap();
    read_answer(&mut BufReader::new(stream)).expect("a whole response")
}

pub(crate) fn request(path: &str, body: &str, fields: &[(&str, &str)]) -> String {
    let mut text = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n" + body
}

/// Reads a line and its end.
fn read_line(stream: &mut impl BufRead, line: &mut String) -> Option<()> {
    line.clear();
    stream.read_line(line).ok()?;
    line.ends_with('\n').then_some(())
}

/// Reads one response; `None` when it is not whole.
pub(crate) fn read_answer(stream: &mut impl BufRead) -> Option<Answer> {
    let mut line = String::new();
    read_line(stream, &mut line)?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut fields = Vec::new();
    loop {
        read_line(stream, &mut line)?;
        let trimmed = line.trim_end();
        if trimmed.is_empty() {
            break;
        }
        let (name, value) = trimmed.split_once(':')?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let of = |name: &str| {
        fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    let mut body = Vec::new();
    if of("transfer-encoding").is_some() {
        loop {
            read_line(stream, &mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        body.resize(
            of("content-length").map_or(Some(0), |length| length.parse().ok())?,
            0,
        );
        stream.read_exact(&mut body).ok()?;
    }
    Some(Answer {
        status,
        fields,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
