//! Model servers on this machine: who answers `/v1/models` on the ports that engines usually take.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The usual ports and who uses them.
pub(crate) const PORTS: [(u16, &str); 5] = [
    (8000, "vLLM"),
    (30000, "SGLang"),
    (8080, "llama.cpp"),
    (11434, "Ollama"),
    (1234, "LM Studio"),
];

/// A server on this machine answers or refuses at once; one that hangs is not waited for.
const DEADLINE: Duration = Duration::from_millis(600);
const MOST_BYTES: u64 = 1 << 20;

/// A model server that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) address: SocketAddr,
    /// What usually listens there, if it is a usual port.
    pub(crate) usual: Option<&'static str>,
}

/// Asks all `ports` at once. Ports in `ours` are never asked: they lead back here.
pub(crate) fn local(ports: &[u16], ours: &[u16]) -> Vec<Found> {
    let asking: Vec<_> = ports
        .iter()
        .filter(|port| !ours.contains(port))
        .map(|&port| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            std::thread::spawn(move || {
                serves_models(address).then(|| Found {
                    address,
                    usual: usual(port),
                })
            })
        })
        .collect();
    asking
        .into_iter()
        .filter_map(|asked| asked.join().ok().flatten())
        .collect()
}

fn usual(port: u16) -> Option<&'static str> {
    let known = PORTS.iter().find(|(usual, _)| *usual == port);
    known.map(|(_, name)| *name)
}

/// Whether `address` answers `GET /v1/models` as an OpenAI-compatible server does.
fn serves_models(address: SocketAddr) -> bool {
    let Ok(answer) = answer(address) else {
        return false;
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let is_good = head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200");
    // Another gateway of ours would send requests round in circles.
    let is_ours = head
        .lines()
        .any(|line| line.to_ascii_lowercase().trim() == "server: penstock");
    is_good && !is_ours && body.contains("\"data\"")
}

fn answer(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let request =
        format!("GET /v1/models HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let read = stream.take(MOST_BYTES).read_to_end(&mut answer);
    // A server that keeps the connection open has said enough by then.
    if answer.is_empty() {
        read?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        });
        address
    }

    #[test]
    fn only_model_servers_are_taken() {
        let models = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"data\":[]}";
        assert!(serves_models(server(models)));
        assert!(!serves_models(server(
            "HTTP/1.1 404 Not Found\r\n\r\n{\"data\":[]}"
        )));
        assert!(!serves_models(server(
            "HTTP/1.1 200 OK\r\n\r\n<html></html>"
        )));
        assert!(!serves_models(server(
            "HTTP/1.1 200 OK\r\nserver: penstock\r\n\r\n{\"data\":[]}"
        )));
        assert!(!serves_models(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))));
    }
}
