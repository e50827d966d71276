//! Servers that a test plays itself: one that tells what it received, one whose stream is held.
//!
//! Their threads end with the test process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// A request as it arrived: its first line and its fields.
fn read_head(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        lines.push(line);
    }
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some(lines)
}

fn serve(each: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = each.clone();
            std::thread::spawn(move || each(stream));
        }
    });
    address
}

/// Answers every request with its own name and what it received, one line each. A path with `hang`
/// in it is never answered.
pub(crate) fn echo(name: &'static str) -> SocketAddr {
    serve(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(lines) = read_head(&mut reader) {
            if lines[0].contains("hang") {
                let _ = stream.read(&mut [0]);
                return;
            }
            let body = format!("{name}\n{}\n", lines.join("\n"));
            let head = format!(
                "HTTP/1.1 200 OK\r\nx-from: {name}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            if stream.write_all((head + &body).as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Answers looks at its models with `models`, and what is asked of them with `served`.
pub(crate) fn lists(models: &'static str) -> SocketAddr {
    serve(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(lines) = read_head(&mut reader) {
            let body = match lines[0].split(' ').nth(1) {
                Some("/v1/models") => models,
                Some("/metrics") => "",
                _ => "served",
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            if stream.write_all((head + body).as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// What a [`counting`] server has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) count: AtomicU64,
    pub(crate) last: Mutex<Vec<String>>,
}

/// Answers its requests, numbered from 0, with the status that `status` says; hangs up where that
/// is 0.
pub(crate) fn counting(
    name: &'static str,
    status: impl Fn(u64) -> u16 + Clone + Send + 'static,
) -> (SocketAddr, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let told = seen.clone();
    let address = serve(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(lines) = read_head(&mut reader) {
            *told.last.lock().unwrap() = lines;
            let status = status(told.count.fetch_add(1, Ordering::Relaxed));
            if status == 0 {
                return;
            }
            let head =
                format!("HTTP/1.1 {status} As told\r\nx-from: {name}\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(head.as_bytes()).is_err() {
                return;
            }
        }
    });
    (address, seen)
}

const FINISH: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

/// A model server whose event stream says what the test tells it to say.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    events: Sender<Option<String>>,
}

impl Scripted {
    pub(crate) fn start() -> Self {
        let (events, script) = channel();
        let script = Arc::new(Mutex::new(script));
        let address = serve(move |stream| play(stream, &script));
        Self { address, events }
    }

    /// Sends one event on the stream that is open.
    pub(crate) fn say(&self, event: &str) {
        self.events.send(Some(event.to_owned())).unwrap();
    }

    /// Ends the stream as it should end.
    pub(crate) fn end(&self) {
        self.events.send(None).unwrap();
    }
}

fn play(mut stream: TcpStream, script: &Mutex<Receiver<Option<String>>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(lines) = read_head(&mut reader) {
        if !lines[0].starts_with("POST") {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            continue;
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
            transfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        let script = script.lock().unwrap();
        while let Ok(Some(event)) = script.recv() {
            // Without a reason to finish, the end mark would mean a server that was told to stop.
            let finish = match event.as_str() {
                "[DONE]" => FINISH,
                _ => "",
            };
            let event = format!("{finish}data: {event}\n\n");
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            if stream.write_all(chunk.as_bytes()).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"0\r\n\r\n");
    }
}
