//! TLS at HAProxy, with the shipped configurations on both sides.

use std::path::{Path, PathBuf};
use std::process::Command;

use monofs_testkit::process::binary;
use monofs_testkit::{Process, free_port, wait_until};

use crate::system::SOON;

fn run(command: &mut Command) -> String {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A certificate for localhost that signs itself: the file with its key, and the file without.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let [key, ca, both] = ["key.pem", "ca.pem", "monofs.pem"].map(|name| dir.join(name));
    let curve = "ec_paramgen_curve:prime256v1";
    run(Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&ca));
    let text = [&ca, &key].map(|part| std::fs::read_to_string(part).unwrap());
    std::fs::write(&both, text.concat()).unwrap();
    (both, ca)
}

/// A shipped configuration with names and ports of this test; each of them must be there.
fn shipped(dir: &Path, name: &str, replace: &[(&str, String)]) -> PathBuf {
    let shipped = format!("{}/../../haproxy/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(shipped).unwrap();
    for (from, to) in replace {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    let at = dir.join(name);
    std::fs::write(&at, text).unwrap();
    at
}

fn haproxy(configs: &[PathBuf], envs: Vec<(&str, &str)>) -> Process {
    let program = ["/usr/sbin/haproxy", "/usr/bin/haproxy"]
        .map(PathBuf::from)
        .into_iter()
        .find(|at| at.exists())
        .expect("haproxy is installed: scripts/require haproxy");
    let mut args = vec!["-db".to_owned()];
    for config in configs {
        args.extend(["-f".to_owned(), config.display().to_string()]);
    }
    let envs = envs
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()));
    Process::spawn_with(program, args, envs)
}

#[test]
fn operators_reach_a_router_through_tls_on_both_ports_and_a_wrong_certificate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [grpc, http, plain_grpc, plain_http, metrics] = std::array::from_fn(|_| free_port());
    let [tls_grpc, tls_http, here] = std::array::from_fn(|_| free_port());
    let router_args = [
        "--listen=127.0.0.1".to_owned(),
        format!("--port={grpc}"),
        format!("--http-port={http}"),
        format!("--state-dir={}", dir.path().join("router").display()),
    ];
    let _router = Process::spawn("monofs-router", router_args);

    // The routers' side: the second router is the first one, too.
    let (certificate, ca) = certificate(dir.path());
    let front = shipped(
        dir.path(),
        "haproxy.cfg",
        &[
            ("router1:9090", format!("127.0.0.1:{grpc}")),
            ("router2:9090", format!("127.0.0.1:{grpc}")),
            ("router1:8080", format!("127.0.0.1:{http}")),
            ("router2:8080", format!("127.0.0.1:{http}")),
            ("port 8080", format!("port {http}")),
            ("*:9090", format!("127.0.0.1:{plain_grpc}")),
            ("*:8080", format!("127.0.0.1:{plain_http}")),
            ("*:8404", format!("127.0.0.1:{metrics}")),
        ],
    );
    let pem = "/usr/local/etc/haproxy/tls/monofs.pem";
    let tls = shipped(
        dir.path(),
        "tls.cfg",
        &[
            (pem, certificate.display().to_string()),
            ("*:9443", format!("127.0.0.1:{tls_grpc}")),
            ("*:8443", format!("127.0.0.1:{tls_http}")),
        ],
    );
    let _front = haproxy(&[front, tls], Vec::new());
    let url = format!("https://localhost:{tls_http}/ready");
    wait_until("HTTPS answers", SOON, || {
        let curl = Command::new("curl")
            .args(["--fail", "--silent", "--cacert"])
            .arg(&ca)
            .arg(&url)
            .output();
        curl.is_ok_and(|done| done.status.success())
    });
    let distrustful = Command::new("curl").arg("--silent").arg(&url).output();
    assert!(
        !distrustful.unwrap().status.success(),
        "an unknown authority"
    );

    // The client's side.
    let port = (":9443", format!(":{tls_grpc}"));
    let side = shipped(
        dir.path(),
        "client-tls.cfg",
        &[
            port,
            ("/etc/monofs/ca.pem", ca.display().to_string()),
            ("127.0.0.1:9090", format!("127.0.0.1:{here}")),
        ],
    );
    let status = || {
        Command::new(binary("monofs-admin"))
            .args([&format!("--router=127.0.0.1:{here}"), "repos"])
            .output()
            .unwrap()
    };
    {
        let _side = haproxy(
            std::slice::from_ref(&side),
            vec![("MONOFS_ROUTER_HOST", "localhost")],
        );
        wait_until("monofs-admin is answered through TLS", SOON, || {
            status().status.success()
        });
    }
    let mut other = haproxy(&[side], vec![("MONOFS_ROUTER_HOST", "127.0.0.1")]);
    wait_until("the client's side listens", SOON, || {
        std::net::TcpStream::connect(("127.0.0.1", here)).is_ok()
    });
    let refused = status();
    assert!(!refused.status.success(), "a certificate of another name");
    assert!(other.is_running());
}
