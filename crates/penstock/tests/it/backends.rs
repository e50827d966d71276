//! TLS with servers: who they must prove to be, what we show them, and what happens when they
//! cannot.

use crate::certificates::{Authority, Certificate};
use crate::configured::{Configured, GATEWAY, route, service};
use crate::gateway::{free_address, get, penstock, wait_until};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// A server that answers each GET with its path, over TLS.
fn server(acceptor: TlsAcceptor) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(talk(acceptor.clone(), stream));
            }
        });
    });
    address
}

async fn talk(acceptor: TlsAcceptor, stream: tokio::net::TcpStream) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut head = Vec::new();
    while stream.read_buf(&mut head).await? > 0 {
        if head.ends_with(b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&head).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default();
            let length = path.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{path}");
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
            head.clear();
        }
    }
    Ok(())
}

fn policy(host: &str, authorities: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
        metadata: {{name: web}}\nspec:\n  targetRefs: [{{group: '', kind: Service, name: web}}]\n  \
        validation: {{hostname: {host}, caCertificateRefs: [{{group: '', kind: ConfigMap, name: {authorities}}}]}}\n"
    )
}

fn manifests(server: SocketAddr) -> String {
    let rules = "rules: [{backendRefs: [{name: web, port: 80}]}]";
    format!(
        "{GATEWAY}{}{}",
        route("web", rules),
        service("web", &[server])
    )
}

#[test]
fn a_server_must_prove_who_it_is() {
    let authority = Authority::new();
    let own = authority.sign(&["web.example"]);
    let address = server(authority.server(&own, "http/1.1", false));
    let base = manifests(address);
    let authorities = authority.config_map("authorities");
    let good = base.clone() + &policy("web.example", "authorities") + &authorities;
    let gateway = Configured::start(&good);
    for path in ["/one", "/two"] {
        assert_eq!(gateway.get(path).body, path);
    }
    gateway.apply(&(base.clone() + &policy("other.example", "authorities") + &authorities));
    let other = gateway.get("/one");
    assert_eq!(other.status, 503, "{other:?}");
    assert!(other.body.contains("tls handshake failed"), "{other:?}");
    // An authority that did not sign.
    let stranger = Authority::new().config_map("authorities");
    gateway.apply(&(base.clone() + &policy("web.example", "authorities") + &stranger));
    assert_eq!(gateway.get("/one").status, 503);
    // None that can be read: nothing is sent at all, and the status says why.
    gateway.apply(&(base.clone() + &policy("web.example", "missing")));
    assert_eq!(gateway.get("/one").status, 500);
    let told = gateway.config()["statuses"].to_string();
    assert!(told.contains("InvalidCACertificateRef"), "{told}");
    assert!(told.contains("NoValidCACertificate"), "{told}");
    gateway.apply(&good);
    assert_eq!(gateway.get("/three").body, "/three");
}

#[test]
fn a_server_may_prove_another_name_where_names_are_given() {
    let authority = Authority::new();
    let own = authority.sign(&["web.example", "spiffe://web.example/model"]);
    let address = server(authority.server(&own, "http/1.1", false));
    let base = manifests(address) + &authority.config_map("authorities");
    let named = |names: &str| {
        let validation =
            format!("validation: {{hostname: asked.example, subjectAltNames: [{names}], ");
        base.clone()
            + &policy("asked.example", "authorities")
                .replace("validation: {hostname: asked.example, ", &validation)
    };
    let host = |name: &str| format!("{{type: Hostname, hostname: {name}}}");
    let uri = |name: &str| format!("{{type: URI, uri: 'spiffe://web.example/{name}'}}");
    let gateway = Configured::start(&named(&host("web.example")));
    assert_eq!(gateway.get("/one").body, "/one");
    for (names, status) in [
        (host("asked.example"), 503),
        (uri("model"), 200),
        (uri("other"), 503),
        (format!("{}, {}", uri("other"), host("web.example")), 200),
    ] {
        gateway.apply(&named(&names));
        assert_eq!(gateway.get("/two").status, status, "{names}");
    }
    // A name alone proves nothing: the authority must have signed it.
    let stranger = Authority::new().config_map("authorities");
    let text = named(&uri("model"));
    let without = text.replace(&authority.config_map("authorities"), &stranger);
    gateway.apply(&without);
    assert_eq!(gateway.get("/three").status, 503);
}

#[test]
fn the_older_of_two_policies_holds() {
    let authority = Authority::new();
    let own = authority.sign(&["web.example"]);
    let address = server(authority.server(&own, "http/1.1", false));
    let base = manifests(address) + &authority.config_map("authorities");
    let named = |name: &str, host: &str| {
        policy(host, "authorities").replace(
            "metadata: {name: web}",
            &format!("metadata: {{name: {name}}}"),
        )
    };
    let text = base + &named("a-first", "web.example") + &named("b-second", "other.example");
    let gateway = Configured::start(&text);
    assert_eq!(gateway.get("/one").body, "/one");
    let told = gateway.config()["statuses"].to_string();
    let conflicts = told.matches("\"reason\":\"Conflicted\"").count();
    assert_eq!(conflicts, 1, "{told}");
}

#[test]
fn a_server_that_asks_is_shown_the_gateways_certificate() {
    let authority = Authority::new();
    let own = authority.sign(&["web.example"]);
    let shown: Certificate = authority.sign(&["gateway"]);
    let address = server(authority.server(&own, "http/1.1", true));
    let base = manifests(address) + &policy("web.example", "authorities");
    let base = base + &authority.config_map("authorities");
    let gateway = Configured::start(&base);
    assert!(gateway.get("/one").status >= 500, "without a certificate");
    let with = base.replace(
        "  gatewayClassName: penstock\n",
        "  gatewayClassName: penstock\n  tls: {backend: {clientCertificateRef: {name: own}}}\n",
    );
    gateway.apply(&(with.clone() + &shown.secret("own")));
    assert_eq!(gateway.get("/one").body, "/one");
    gateway.apply(&with);
    let told = gateway.config()["statuses"].to_string();
    assert!(told.contains("InvalidClientCertificateRef"), "{told}");
}

#[test]
fn the_plain_form_speaks_https_to_servers() {
    let authority = Authority::new();
    let own = authority.sign(&["127.0.0.1"]);
    let shown = authority.sign(&["gateway"]);
    let server = server(authority.server(&own, "http/1.1", true));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca.pem", &authority.pem());
    write("own.pem", &(shown.chain.clone() + &shown.key));
    let (address, admin) = (free_address(), free_address());
    let text = format!(
        "listen: {address}\nclientCertificate: own.pem\n\
        pools: [{{name: web, endpoints: ['https://{server}'], ca: ca.pem}}]\n"
    );
    write("penstock.yaml", &text);
    let config = folder.path().join("penstock.yaml");
    let admin_text = admin.to_string();
    let child = penstock(&["run", config.to_str().unwrap(), "--admin", &admin_text])
        .args(["--workers", "1"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _process = crate::gateway::Running(child);
    wait_until(|| get(admin, "/readyz").is_some_and(|ready| ready.status == 200));
    let answer = get(address, "/some/path").unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "/some/path"));
}
