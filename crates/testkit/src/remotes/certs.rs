//! A private certificate authority, made with the openssl command line.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority and one server certificate for 127.0.0.1 and localhost.
pub struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    /// Makes new keys.
    #[track_caller]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let authority = Self { dir };
        let at = |name: &str| authority.dir.path().join(name).display().to_string();
        let (ca_key, ca, key, request, cert) = (
            at("ca.key"),
            at("ca.pem"),
            at("server.key"),
            at("server.csr"),
            at("server.pem"),
        );
        let curve = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let authority_names = [
            "-subj",
            "/CN=MonoFS test authority",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
        ];
        let uses = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        let own = [
            "req", "-x509", "-days", "30", "-keyout", &ca_key, "-out", &ca,
        ];
        openssl(&[&own[..], &curve, &authority_names, &uses].concat());
        let ask = [
            "req",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            "/CN=localhost",
        ];
        openssl(&[&ask[..], &curve].concat());
        let extensions = at("server.ext");
        let text = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n";
        std::fs::write(&extensions, text).expect("write the extensions");
        let sign = [
            "x509",
            "-req",
            "-days",
            "30",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
        ];
        openssl(&[&sign[..], &["-out", &cert, "-extfile", &extensions]].concat());
        authority
    }

    /// The authority's certificate: what a client must trust.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("server.pem")
    }

    /// The server's key.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("server.key")
    }

    /// Where all of it is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

#[track_caller]
fn openssl(args: &[&str]) {
    let out = Command::new(crate::require("openssl"))
        .args(args)
        .output()
        .expect("run openssl");
    assert!(
        out.status.success(),
        "openssl {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}
