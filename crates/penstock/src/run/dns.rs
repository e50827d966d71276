//! How long the addresses of a name hold.
//!
//! The system's resolver says which addresses a name has, with its hosts file, its search list and its
//! caches, but not for how long. So a name server of `/etc/resolv.conf` is asked that, the way RFC 1035
//! says: only how soon to look again depends on its answer.

use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;

const DEADLINE: Duration = Duration::from_secs(1);
/// Name servers that are asked, one after the other.
const MOST_SERVERS: usize = 3;
const PORT: u16 = 53;
/// The most that comes in one answer without extensions is 512 bytes (RFC 1035, 4.2.1).
const MOST_BYTES: usize = 4096;

/// What the first name server that knows addresses of `host` says; `None` when none does.
pub(super) async fn of(host: &str) -> Option<Duration> {
    let file = tokio::fs::read_to_string("/etc/resolv.conf").await.ok()?;
    for server in servers(&file).take(MOST_SERVERS) {
        let server = SocketAddr::new(server, PORT);
        for kind in [TYPE::A, TYPE::AAAA] {
            let asked = tokio::time::timeout(DEADLINE, ask(server, host, kind)).await;
            if let Ok(Some(time)) = asked {
                return Some(time);
            }
        }
    }
    None
}

fn servers(file: &str) -> impl Iterator<Item = IpAddr> + '_ {
    file.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    })
}

/// The least time to live in the answer: of an address, or of an alias on the way to it.
async fn ask(server: SocketAddr, host: &str, kind: TYPE) -> Option<Duration> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    // Answers of others do not get through.
    socket.connect(server).await.ok()?;
    let id = RandomState::new().hash_one(host) as u16;
    socket.send(&question(id, host, kind)?).await.ok()?;
    let mut room = [0; MOST_BYTES];
    loop {
        let count = socket.recv(&mut room).await.ok()?;
        let Ok(answer) = Packet::parse(room.get(..count)?) else {
            continue;
        };
        if answer.id() == id {
            let has_address = |record: &&_| is_of(record, kind);
            answer.answers.iter().find(has_address)?;
            let times = answer.answers.iter().map(|record| record.ttl);
            return times
                .min()
                .map(|seconds| Duration::from_secs(seconds.into()));
        }
    }
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
    use simple_dns::rdata::{A, CNAME, RData};

    /// A name server that answers one question with these records.
    fn server(records: Vec<ResourceRecord<'static>>) -> SocketAddr {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut room = [0; 512];
            let (count, from) = socket.recv_from(&mut room).unwrap();
            let asked = Packet::parse(&room[..count]).unwrap();
            let mut answer = Packet::new_reply(asked.id().wrapping_add(1));
            answer.answers = records;
            // What was not asked for, and noise, come first.
            let other = answer.build_bytes_vec().unwrap();
            answer.set_id(asked.id());
            for bytes in [other, b"noise".to_vec(), answer.build_bytes_vec().unwrap()] {
                socket.send_to(&bytes, from).unwrap();
            }
        });
        address
    }

    fn record(name: &'static str, ttl: u32, data: RData<'static>) -> ResourceRecord<'static> {
        ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, ttl, data)
    }

    #[tokio::test]
    async fn the_least_time_on_the_way_to_an_address_counts() {
        let alias = || {
            let to = CNAME(Name::new("b.example").unwrap());
            record("a.example", 7, RData::CNAME(to))
        };
        let address = |ttl| {
            record(
                "b.example",
                ttl,
                RData::A(A {
                    address: 0x0A00_0001,
                }),
            )
        };
        for (records, seconds) in [
            (vec![alias(), address(60)], Some(7)),
            (vec![address(5), address(9)], Some(5)),
            (vec![alias()], None),
            (vec![], None),
        ] {
            let server = server(records);
            let time = ask(server, "a.example", TYPE::A).await;
            assert_eq!(time, seconds.map(Duration::from_secs));
        }
    }

    #[test]
    fn name_servers_are_read_as_resolvers_do() {
        let file = "# none\nsearch example\nnameserver 10.0.0.1\nnameserver  ::1\nnameserver x\n";
        let found: Vec<String> = servers(file).map(|one| one.to_string()).collect();
        assert_eq!(found, ["10.0.0.1", "::1"]);
    }
}
