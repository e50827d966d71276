//! Servers that are known by name: traffic follows the name when its time to live is over, neither
//! before nor much later, and stays where it was when nobody can tell.

use crate::gateway::{Gateway, post, wait_until};
use crate::picker::Kept;
use crate::servers::{CHAT, chat};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, QTYPE, ResourceRecord, TYPE};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

/// A name server that says what a test tells it to say.
struct NameServer {
    address: SocketAddr,
    names: Arc<Mutex<BTreeMap<&'static str, Known>>>,
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
        let kept = names.clone();
        // The thread ends with the test binary: it holds nothing but its socket.
        std::thread::spawn(move || {
            let mut room = [0; 512];
            while let Ok((count, from)) = socket.recv_from(&mut room) {
                let answer = answer(&room[..count], &kept);
                socket.send_to(&answer, from).unwrap();
            }
        });
        Self { address, names }
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

/// Who serves this model.
fn server_of(gateway: &Gateway, model: &str) -> String {
    let answer = post(gateway.address, CHAT, &chat(model, "hello", 1, false));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
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
