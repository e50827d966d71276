//! Servers that are known by name: traffic follows the name when its time to live is over, neither
//! before nor much later, and stays where it was when nobody can tell.

use crate::configured::Configured;
use crate::gateway::{Gateway, post, wait_until};
use crate::picker::Kept;
use crate::servers::{CHAT, chat};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, QTYPE, ResourceRecord, TYPE};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A name server that says what a test tells it to say.
struct NameServer {
    address: SocketAddr,
    names: Arc<Mutex<BTreeMap<&'static str, Known>>>,
    /// It takes questions and answers none.
    is_silent: Arc<AtomicBool>,
}

/// One name.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    /// Unknown without one.
    address: Option<Ipv4Addr>,
    seconds: u32,
    /// How often its IPv4 addresses were asked for.
    asked: usize,
}

impl NameServer {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let names = Arc::<Mutex<BTreeMap<_, Known>>>::default();
        let is_silent = Arc::new(AtomicBool::new(false));
        let (kept, silent) = (names.clone(), is_silent.clone());
        // The thread ends with the test binary: it holds nothing but its socket.
        std::thread::spawn(move || {
            let mut room = [0; 512];
            while let Ok((count, from)) = socket.recv_from(&mut room) {
                let answer = answer(&room[..count], &kept);
                if !silent.load(SeqCst) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Self {
            address,
            names,
            is_silent,
        }
    }

    fn tells(&self, name: &'static str, address: Option<Ipv4Addr>, seconds: u32) {
        let mut names = self.names.lock().unwrap();
        let known = names.entry(name).or_default();
        (known.address, known.seconds) = (address, seconds);
    }

    fn asked(&self, name: &str) -> usize {
        self.names.lock().unwrap()[name].asked
    }
}

fn answer(question: &[u8], names: &Mutex<BTreeMap<&str, Known>>) -> Vec<u8> {
    let asked = Packet::parse(question).unwrap();
    let question = &asked.questions[0];
    let mut answer = Packet::new_reply(asked.id());
    let mut names = names.lock().unwrap();
    if question.qtype == QTYPE::TYPE(TYPE::A)
        && let Some(known) = names.get_mut(question.qname.to_string().as_str())
    {
        known.asked += 1;
        let name: Name<'_> = question.qname.clone();
        answer.answers.extend(known.address.map(|address| {
            let data = RData::A(A {
                address: address.into(),
            });
            ResourceRecord::new(name, CLASS::IN, known.seconds, data)
        }));
    }
    answer.build_bytes_vec().unwrap()
}

const ONE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Two servers at the same port of two addresses.
fn servers() -> u16 {
    loop {
        let one = TcpListener::bind((ONE, 0)).unwrap();
        let port = one.local_addr().unwrap().port();
        if let Ok(two) = TcpListener::bind((TWO, port)) {
            Kept::start_on(one, "one");
            Kept::start_on(two, "two");
            return port;
        }
    }
}

/// Who serves this model, if anybody does.
fn found(gateway: SocketAddr, model: &str) -> Option<String> {
    let answer = post(gateway, CHAT, &chat(model, "hello", 1, false));
    (answer.status == 200).then_some(answer.body)
}

/// Who serves this model.
#[track_caller]
fn server_of(gateway: &Gateway, model: &str) -> String {
    found(gateway.address, model).expect("somebody serves it")
}

#[test]
fn traffic_follows_a_name_when_its_time_is_over() {
    let (names, port) = (NameServer::start(), servers());
    names.tells("quick.example", Some(ONE), 1);
    names.tells("lasting.example", Some(ONE), 600);
    let pool = |name: &str| {
        format!(
            "  - {{name: {name}, models: [{name}], endpoints: ['http://{name}.example:{port}']}}\n"
        )
    };
    let text = format!("pools:\n{}{}", pool("quick"), pool("lasting"));
    let gateway = Gateway::plain(&text, &["--name-server", &names.address.to_string()]);
    for model in ["quick", "lasting"] {
        assert_eq!(server_of(&gateway, model), "one");
    }
    names.tells("quick.example", Some(TWO), 1);
    names.tells("lasting.example", Some(TWO), 600);
    // Where nobody tells a time it would be 30 s, for which nobody waits here.
    wait_until(|| server_of(&gateway, "quick") == "two");
    let asked = names.asked("quick.example");
    wait_until(|| names.asked("quick.example") > asked + 1);
    for _ in 0..20 {
        assert_eq!(server_of(&gateway, "quick"), "two");
    }
    assert_eq!(
        server_of(&gateway, "lasting"),
        "one",
        "its time is not over"
    );
    assert_eq!(names.asked("lasting.example"), 1);
    // A name that nobody knows any more keeps its address.
    names.tells("quick.example", None, 1);
    let asked = names.asked("quick.example");
    wait_until(|| names.asked("quick.example") > asked);
    assert_eq!(server_of(&gateway, "quick"), "two");
    // Who asks for all of it gets all of it.
    gateway.signal("-HUP");
    wait_until(|| server_of(&gateway, "lasting") == "two");
    assert_eq!(server_of(&gateway, "quick"), "two");
    gateway.is_quiet();
}

/// Far less than the time after which name servers that do not answer are given up.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn an_edit_does_not_wait_for_name_servers_that_are_silent() {
    let (names, port) = (NameServer::start(), servers());
    // Who is asked next has nothing to say either.
    let silent = [(); 2].map(|()| UdpSocket::bind((ONE, 0)).unwrap());
    let servers = [
        names.address,
        silent[0].local_addr().unwrap(),
        silent[1].local_addr().unwrap(),
    ];
    let servers = servers.map(|server| server.to_string());
    let asked = servers
        .iter()
        .flat_map(|server| ["--name-server", server.as_str()]);
    names.tells("known.example", Some(ONE), 1);
    let pool = |name: &str, host: &str| {
        format!("  - {{name: {name}, models: [{name}], endpoints: ['http://{host}:{port}']}}\n")
    };
    let mut text = "listen: 127.0.0.1:PORT\npools:\n".to_owned() + &pool("known", "known.example");
    let gateway = Configured::start_with(&text, &asked.collect::<Vec<_>>());
    let address = gateway.address;
    assert_eq!(found(address, "known").unwrap(), "one");
    names.is_silent.store(true, SeqCst);
    // While a name is looked up again, and while one is for the first time, again and again.
    let asked = names.asked("known.example");
    wait_until(|| names.asked("known.example") > asked);
    names.tells("unknown.example", Some(ONE), 1);
    text += &pool("unknown", "unknown.example");
    for edit in 0..3 {
        let name = format!("edit-{edit}");
        text += &pool(&name, &TWO.to_string());
        let from = Instant::now();
        gateway.edit(&text);
        // Before, a model that no pool declares goes to the first.
        while found(address, &name).as_deref() != Some("two") {
            assert!(from.elapsed() < AT_ONCE, "{name} is not in force");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(found(address, "known").unwrap(), "one", "kept meanwhile");
        assert_eq!(found(address, "unknown"), None, "it has no members yet");
        wait_until(|| names.asked("unknown.example") > 0);
    }
    names.is_silent.store(false, SeqCst);
    gateway.signal("-HUP");
    wait_until(|| found(address, "unknown").is_some());
    assert_eq!(found(address, "known").unwrap(), "one");
    gateway.is_quiet();
}
