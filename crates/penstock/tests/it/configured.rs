//! A gateway that runs from files which a test edits, and manifests to put into them.

use crate::accounts::Accounts;
use crate::gateway::{
    Answer, DEADLINE, Running, connect, free_address, get, penstock, read_answer, wait_until,
};
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `penstock run DIRECTORY` with one file in it.
#[derive(Debug)]
pub(crate) struct Configured {
    /// Before the process: they are looked at while it runs.
    accounts: Accounts,
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Configured {
    /// Starts with `text`, in which `PORT` is a free port; returns once it is ready.
    pub(crate) fn start(text: &str) -> Self {
        Self::start_with(text, &[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(text: &str, more: &[&str]) -> Self {
        Self::start_by(text, more, |command| command)
    }

    /// The same by the command that `by` makes of the usual one.
    pub(crate) fn start_by(text: &str, more: &[&str], by: impl FnOnce(Command) -> Command) -> Self {
        let (address, admin) = (free_address(), free_address());
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("files")).unwrap();
        let log = File::create(folder.path().join("stderr")).unwrap();
        let admin_text = admin.to_string();
        let files = folder.path().join("files");
        write(&files.join("one.yaml"), &with_port(text, address));
        let files = files.to_str().unwrap();
        let args = ["run", files, "--admin", &admin_text, "--workers", "2"];
        let mut command = penstock(&args);
        command.args(["--watch-interval", "1ms"]).args(more);
        let mut command = by(command);
        command.stdout(Stdio::null()).stderr(log);
        let started = Self {
            accounts: Accounts::of(&command, admin),
            process: Running(command.spawn().unwrap()),
            address,
            admin,
            folder,
        };
        wait_until(|| get(admin, "/readyz").is_some_and(|answer| answer.status == 200));
        started
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("files").join(name)
    }

    /// Writes another file beside the first.
    pub(crate) fn edit_file(&self, name: &str, text: &str) {
        write(&self.file(name), text);
    }

    /// Replaces the configuration.
    pub(crate) fn edit(&self, text: &str) {
        write(&self.file("one.yaml"), &with_port(text, self.address));
    }

    /// Replaces the configuration and waits until it is in force.
    pub(crate) fn apply(&self, text: &str) {
        let before = self.version();
        self.edit(text);
        let until = Instant::now() + DEADLINE;
        while self.version() <= before {
            let refused = &self.config()["refused"];
            assert!(Instant::now() < until, "no new version; refused: {refused}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `/debug/config`.
    pub(crate) fn config(&self) -> Value {
        serde_json::from_str(&get(self.admin, "/debug/config").unwrap().body).unwrap()
    }

    pub(crate) fn version(&self) -> u64 {
        self.config()["version"].as_u64().unwrap()
    }

    /// The status of a condition of an object, or of one of its listeners, and its reason.
    pub(crate) fn condition(&self, kind: &str, listener: Option<&str>, wanted: &str) -> String {
        let config = self.config();
        let object = find(&config["statuses"], "kind", kind);
        let owner = match listener {
            Some(name) => find(&object["listeners"], "name", name),
            None => object,
        };
        let found = find(&owner["conditions"], "type", wanted);
        format!("{}/{}", found["status"], found["reason"]).replace('"', "")
    }

    /// The sum of a metric over its labels; 0 when it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.accounts.metric(name, "")
    }

    /// Nothing waits and nothing is in flight any more, and all that ended is accounted for.
    #[track_caller]
    pub(crate) fn is_quiet(&self) {
        self.accounts.is_quiet();
    }

    /// What was written to standard error so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.0.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// `METHOD TARGET` to `host`, with fields.
    pub(crate) fn ask(&self, method: &str, host: &str, target: &str, fields: &[&str]) -> Answer {
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
        for field in fields {
            request.push_str(&format!("{field}\r\n"));
        }
        let mut stream = connect(self.address);
        stream.write_all((request + "\r\n").as_bytes()).unwrap();
        read_answer(&mut BufReader::new(stream)).expect("a whole response")
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask("GET", "test.example", target, &[])
    }
}

fn find<'a>(list: &'a Value, key: &str, wanted: &str) -> &'a Value {
    let found = list
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one[key] == wanted);
    assert!(found.is_some(), "no {key} {wanted} in {list}");
    found.unwrap()
}

fn with_port(text: &str, address: SocketAddr) -> String {
    text.replace("PORT", &address.port().to_string())
}

/// In one step, as careful editors do.
fn write(path: &std::path::Path, text: &str) {
    let part = path.with_extension("part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(part, path).unwrap();
}

/// A Gateway `gw` with one listener on PORT.
pub(crate) const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: penstock
  addresses: [{value: 127.0.0.1}]
  listeners: [{name: http, port: PORT, protocol: HTTP}]
";

/// An HTTPRoute on `gw`; `rest` is what stands in its spec beside the parent, in flow style.
pub(crate) fn route(name: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\n\
        spec: {{parentRefs: [{{name: gw}}], {rest}}}\n"
    )
}

/// A Service with port 80 and its endpoints.
pub(crate) fn service(name: &str, endpoints: &[SocketAddr]) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n"
    );
    for (index, endpoint) in endpoints.iter().enumerate() {
        let labels = format!("kubernetes.io/service-name: {name}");
        text.push_str(&slice(&format!("{name}-{index}"), &labels, *endpoint));
    }
    text
}

/// An InferencePool (v1) and its members; `rest` stands in its spec.
pub(crate) fn pool(name: &str, rest: &str, members: &[SocketAddr]) -> String {
    let ports: Vec<String> = members
        .iter()
        .map(|member| format!("{{number: {}}}", member.port()))
        .collect();
    let ports = if ports.is_empty() {
        "{number: 8000}".to_owned()
    } else {
        ports.join(", ")
    };
    let mut text = format!(
        "---\napiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {{name: {name}}}\n\
        spec: {{selector: {{matchLabels: {{app: {name}}}}}, targetPorts: [{ports}]{rest}}}\n"
    );
    for (index, member) in members.iter().enumerate() {
        text.push_str(&slice(
            &format!("{name}-{index}"),
            &format!("app: {name}"),
            *member,
        ));
    }
    text
}

pub(crate) fn slice(name: &str, labels: &str, endpoint: SocketAddr) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
        metadata: {{name: {name}, labels: {{{labels}}}}}\naddressType: IPv4\n\
        ports: [{{port: {}}}]\nendpoints: [{{addresses: [{}]}}]\n",
        endpoint.port(),
        endpoint.ip()
    )
}

/// A backend reference to an InferencePool.
pub(crate) fn to_pool(name: &str) -> String {
    format!("{{group: inference.networking.k8s.io, kind: InferencePool, name: {name}}}")
}
