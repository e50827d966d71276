//! Binding ports: one `SO_REUSEPORT` socket per worker, and who holds a port that is taken.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that may wait for a worker.
const BACKLOG: i32 = 4096;

/// `workers` sockets on `address`; port 0 takes a free port, the same for all.
///
/// # Errors
/// The port is taken (the error names the process that holds it, where the system tells), or may
/// not be bound.
pub(crate) fn sockets(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // A first bind without SO_REUSEPORT: else a second gateway of the same user would silently
    // share the port and take half of the connections.
    let probe = socket(address, false).map_err(|error| explain(address, error))?;
    let address = probe.local_addr()?;
    drop(probe);
    (0..workers)
        .map(|_| {
            let listener = socket(address, true).map_err(|error| explain(address, error))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .collect()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Adds address and holder to a bind error.
pub fn explain(address: SocketAddr, error: io::Error) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => match holder(address.port()) {
            Some(holder) => format!("{address} is in use by {holder}"),
            None => format!("{address} is in use by another process"),
        },
        io::ErrorKind::PermissionDenied => format!(
            "{address} may not be bound: ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        ),
        _ => format!("cannot listen on {address}: {error}"),
    };
    io::Error::new(error.kind(), text)
}

/// The process that listens on `port`, as `NAME (pid N)`. Linux only; only processes that this
/// user may look into.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .filter_map(|line| listening(line, port))
                .collect::<Vec<_>>()
        })
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let files = std::fs::read_dir(process.path().join("fd")).ok()?;
        let holds = files.flatten().any(|file| {
            std::fs::read_link(file.path()).is_ok_and(|target| {
                inodes
                    .iter()
                    .any(|inode| target.as_os_str() == inode.as_str())
            })
        });
        let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
        holds.then(|| format!("{} (pid {pid})", name.trim()))
    })
}

/// The socket inode of a line of `/proc/net/tcp` that is in state LISTEN on `port`.
fn listening(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, hex) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == "0A" && u16::from_str_radix(hex, 16).ok()? == port;
    listens.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}
