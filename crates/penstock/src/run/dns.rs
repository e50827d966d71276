//! What name servers say of a name: its addresses, and for how long they hold.
//!
//! Where none is named (`--name-server`), the system's resolver says which addresses a name has, with
//! its hosts file, its search list and its caches, but not for how long. So a name server of
//! `/etc/resolv.conf` is asked that, the way RFC 1035 says: only how soon to look again depends on
//! its answer.

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const DEADLINE: Duration = Duration::from_secs(1);
/// Name servers that are asked, one after the other.
const MOST_SERVERS: usize = 3;
const PORT: u16 = 53;
/// The most that comes in one datagram without extensions is 512 bytes (RFC 1035, 4.2.1).
const MOST_BYTES: usize = 4096;

/// What a name server says of a name.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    /// At least one.
    pub(super) addresses: Vec<IpAddr>,
    /// The least time to live on the way to them: of an address, or of an alias.
    pub(super) time: Duration,
}

/// Reads `--name-server`.
pub(crate) fn name_server(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    let found = with_port.or_else(|| Some(SocketAddr::new(text.parse().ok()?, PORT)));
    found.ok_or_else(|| "write an address such as 10.0.0.2 or 127.0.0.1:8600".to_owned())
}

/// How long addresses of `host` hold, as a name server of this machine says.
pub(super) async fn time_of(host: &str) -> Option<Duration> {
    let file = tokio::fs::read_to_string("/etc/resolv.conf").await.ok()?;
    let servers: Vec<SocketAddr> = servers(&file).collect();
    of(&servers, host).await.map(|told| told.time)
}

/// What the first of these name servers that knows addresses of `host` says; `None` when none does.
pub(super) async fn of(servers: &[SocketAddr], host: &str) -> Option<Told> {
    for server in servers.iter().take(MOST_SERVERS) {
        for kind in [TYPE::A, TYPE::AAAA] {
            let asked = tokio::time::timeout(DEADLINE, ask(*server, host, kind)).await;
            match asked {
                Ok(Some(told)) => return Some(told),
                Ok(None) => {}
                // A silent one is not asked for the other kind: the next may know.
                Err(_) => break,
            }
        }
    }
    None
}

fn servers(file: &str) -> impl Iterator<Item = SocketAddr> + '_ {
    file.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        let address = is_server.then(|| words.next()?.parse().ok())??;
        Some(SocketAddr::new(address, PORT))
    })
}

/// Addresses of one kind.
async fn ask(server: SocketAddr, host: &str, kind: TYPE) -> Option<Told> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    // Answers of others do not get through.
    socket.connect(server).await.ok()?;
    let id = RandomState::new().hash_one(host) as u16;
    let question = question(id, host, kind)?;
    socket.send(&question).await.ok()?;
    let mut room = [0; MOST_BYTES];
    loop {
        let count = socket.recv(&mut room).await.ok()?;
        let Ok(answer) = Packet::parse(room.get(..count)?) else {
            continue;
        };
        if answer.id() != id {
            continue;
        }
        if !answer.has_flags(PacketFlag::TRUNCATION) {
            return told(&answer, kind);
        }
        // All of it comes over a connection (RFC 7766).
        let bytes = over_tcp(server, &question).await?;
        let answer = Packet::parse(&bytes).ok()?;
        return (answer.id() == id).then(|| told(&answer, kind))?;
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await.ok()?;
    let length = u16::try_from(question.len()).ok()?;
    let message = [&length.to_be_bytes(), question].concat();
    stream.write_all(&message).await.ok()?;
    let length = stream.read_u16().await.ok()?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

fn told(answer: &Packet<'_>, kind: TYPE) -> Option<Told> {
    let of_kind = answer.answers.iter().filter(|record| is_of(record, kind));
    let addresses: Vec<IpAddr> = of_kind
        .filter_map(|record| match &record.rdata {
            RData::A(found) => Some(Ipv4Addr::from(found.address).into()),
            RData::AAAA(found) => Some(Ipv6Addr::from(found.address).into()),
            _ => None,
        })
        .collect();
    addresses.first()?;
    let seconds = answer.answers.iter().map(|record| record.ttl).min()?;
    Some(Told {
        addresses,
        time: Duration::from_secs(seconds.into()),
    })
}

fn is_of(record: &simple_dns::ResourceRecord<'_>, kind: TYPE) -> bool {
    record.match_qtype(QTYPE::TYPE(kind))
}

fn question(id: u16, host: &str, kind: TYPE) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let (name, class) = (Name::new(host).ok()?, QCLASS::CLASS(CLASS::IN));
    let question = Question::new(name, QTYPE::TYPE(kind), class, false);
    packet.questions.push(question);
    packet.build_bytes_vec().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, CNAME};
    use std::io::{Read, Write};

    /// A name server that answers one question with these records; if they are too many for a
    /// datagram, over a connection.
    fn server(records: Vec<ResourceRecord<'static>>, fits: bool) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = std::net::UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || {
            let mut room = [0; 512];
            let (count, from) = socket.recv_from(&mut room).unwrap();
            let asked = Packet::parse(&room[..count]).unwrap();
            let mut answer = Packet::new_reply(asked.id().wrapping_add(1));
            answer.answers = records;
            // What was not asked for, and noise, come first.
            let other = answer.build_bytes_vec().unwrap();
            answer.set_id(asked.id());
            let whole = answer.build_bytes_vec().unwrap();
            if !fits {
                answer.answers.truncate(1);
                answer.set_flags(PacketFlag::TRUNCATION);
            }
            for bytes in [other, b"noise".to_vec(), answer.build_bytes_vec().unwrap()] {
                socket.send_to(&bytes, from).unwrap();
            }
            if !fits {
                let (mut stream, _) = listener.accept().unwrap();
                let mut question = vec![0; 2 + count];
                stream.read_exact(&mut question).unwrap();
                assert_eq!(question[2..], room[..count]);
                let length = (whole.len() as u16).to_be_bytes();
                stream.write_all(&[&length, &whole[..]].concat()).unwrap();
            }
        });
        address
    }

    fn record(name: &'static str, ttl: u32, data: RData<'static>) -> ResourceRecord<'static> {
        ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, ttl, data)
    }

    fn alias() -> ResourceRecord<'static> {
        let to = CNAME(Name::new("b.example").unwrap());
        record("a.example", 7, RData::CNAME(to))
    }

    fn address(last: u32, ttl: u32) -> ResourceRecord<'static> {
        let address = 0x0A00_0000 + last;
        record("b.example", ttl, RData::A(A { address }))
    }

    fn found(addresses: u32, seconds: u64) -> Option<Told> {
        let at = |last| Ipv4Addr::from(0x0A00_0000 + last).into();
        Some(Told {
            addresses: (0..addresses).map(at).collect(),
            time: Duration::from_secs(seconds),
        })
    }

    #[tokio::test]
    async fn the_least_time_on_the_way_to_an_address_counts() {
        for (records, expected) in [
            (vec![alias(), address(0, 60)], found(1, 7)),
            (vec![address(0, 5), address(1, 9)], found(2, 5)),
            (vec![alias()], None),
            (vec![], None),
        ] {
            let server = server(records, true);
            assert_eq!(ask(server, "a.example", TYPE::A).await, expected);
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_into_a_datagram_is_asked_for_over_a_connection() {
        let server = server((0..100).map(|last| address(last, 60)).collect(), false);
        assert_eq!(of(&[server], "b.example").await, found(100, 60));
    }

    #[test]
    fn name_servers_are_read_as_resolvers_do() {
        let file = "# none\nsearch example\nnameserver 10.0.0.1\nnameserver  ::1\nnameserver x\n";
        let found: Vec<String> = servers(file).map(|one| one.to_string()).collect();
        assert_eq!(found, ["10.0.0.1:53", "[::1]:53"]);
    }

    #[test]
    fn a_name_server_may_have_a_port() {
        for (text, read) in [
            ("10.0.0.2", "10.0.0.2:53"),
            ("127.0.0.1:8600", "127.0.0.1:8600"),
            ("::1", "[::1]:53"),
            ("[::1]:5353", "[::1]:5353"),
        ] {
            assert_eq!(name_server(text).unwrap().to_string(), read);
        }
        assert!(name_server("dns.example").is_err());
    }
}
