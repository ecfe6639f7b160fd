//! A private certificate authority, made with the openssl command line.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A new key on a curve, which is much quicker to make than an RSA key.
const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

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
        authority.make_own_certificate();
        authority.make_request();
        authority.sign_request();
        authority
    }

    /// A server certificate for the same names that signed itself. `is_authority`: it says that it
    /// may sign others, too, as `openssl req -x509` makes them.
    #[track_caller]
    pub fn self_signed(is_authority: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let authority = Self { dir };
        let key = authority.at("server.key");
        let certificate = authority.at("server.pem");
        let constraints = if is_authority {
            "basicConstraints=critical,CA:TRUE"
        } else {
            "basicConstraints=critical,CA:FALSE"
        };
        let files = [
            "req",
            "-x509",
            "-days",
            "30",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ];
        let names = [
            "-subj",
            "/CN=localhost",
            "-addext",
            constraints,
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ];
        openssl(&[&files[..], &NEW_KEY, &names].concat());
        authority
    }

    /// Where a file is, for a command line.
    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// The authority's key, and the certificate that it gives itself.
    fn make_own_certificate(&self) {
        let key = self.at("ca.key");
        let certificate = self.at("ca.pem");
        let files = [
            "req",
            "-x509",
            "-days",
            "30",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ];
        let names = [
            "-subj",
            "/CN=MonoFS test authority",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ];
        openssl(&[&files[..], &NEW_KEY, &names].concat());
    }

    /// The server's key, and its request for a certificate.
    fn make_request(&self) {
        let key = self.key().display().to_string();
        let request = self.at("server.csr");
        let files = [
            "req",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            "/CN=localhost",
        ];
        openssl(&[&files[..], &NEW_KEY].concat());
    }

    /// The server's certificate, for the names that tests use.
    fn sign_request(&self) {
        let extensions = self.at("server.ext");
        let text = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n\
                    basicConstraints=CA:FALSE\n";
        std::fs::write(&extensions, text).expect("write the extensions");
        let request = self.at("server.csr");
        let signer = self.at("ca.pem");
        let signer_key = self.at("ca.key");
        let certificate = self.at("server.pem");
        let asked = ["x509", "-req", "-days", "30", "-in", &request];
        let by = ["-CA", &signer, "-CAkey", &signer_key, "-CAcreateserial"];
        let result = ["-out", &certificate, "-extfile", &extensions];
        openssl(&[&asked[..], &by, &result].concat());
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
    let out = Command::new(crate::wait::require("openssl"))
        .args(args)
        .output()
        .expect("run openssl");
    assert!(
        out.status.success(),
        "openssl {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}
