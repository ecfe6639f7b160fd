//! A headless Chromium and its driver, both gone when this value is.

use std::ffi::OsString;
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use monofs_testkit::process::Process;
use monofs_testkit::wait::{require, wait_for_async, wait_until};
use serde_json::{Value, json};

use crate::http;

/// How long a page may take to show something.
pub const SOON: Duration = Duration::from_secs(30);
/// A machine that compiles beside may be slow to start a browser.
const START: Duration = Duration::from_secs(60);

pub struct Browser {
    pub client: Client,
    /// Of the driver.
    address: String,
    session: String,
    /// Where the pages are.
    site: String,
    _driver: Process,
    _home: tempfile::TempDir,
}

/// Starts a driver on a free port. It looks for one with IPv6 and then takes the same with IPv4,
/// where another program may have it: then it ends, and another is started.
fn start_driver(envs: [(OsString, OsString); 2]) -> (Process, String) {
    loop {
        let mut driver = Process::spawn_with(require("chromedriver"), ["--port=0"], envs.clone());
        match driver.line_or_end("started successfully on port", START) {
            Ok(line) => {
                return (
                    driver,
                    line.trim_end_matches('.')
                        .rsplit(' ')
                        .next()
                        .unwrap()
                        .to_owned(),
                );
            }
            // What it wrote last may arrive after its end.
            Err(status) => wait_until(
                &format!("the driver, ended with {status}, says that its port is taken"),
                START,
                || {
                    driver
                        .log()
                        .iter()
                        .any(|line| line.contains("Address already in use"))
                },
            ),
        }
    }
}

impl Browser {
    /// Opens a browser for the pages at `site` (`host:port`).
    pub async fn open(site: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        // Its profile is there too, so that nothing is left when it is killed.
        let envs = ["HOME", "TMPDIR"].map(|name| (name.into(), home.path().into()));
        let (driver, port) = start_driver(envs);
        let address = format!("127.0.0.1:{port}");
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--no-first-run",
            "--window-size=1280,900",
            "--force-color-profile=srgb",
        ];
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": args, "binary": require("chromium") },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://{address}"))
            .await
            .unwrap();
        let session = client.session_id().await.unwrap().unwrap();
        Self {
            client,
            address,
            session,
            site: site.to_owned(),
            _driver: driver,
            _home: home,
        }
    }

    /// Goes to a page of the site.
    pub async fn go(&self, path: &str) {
        self.client
            .goto(&format!("http://{}{path}", self.site))
            .await
            .unwrap();
    }

    /// The first element that fits, once there is one that can be seen.
    pub async fn find(&self, css: &str) -> Element {
        wait_for_async(&format!("'{css}' is shown"), SOON, || async {
            let found = self.client.find(Locator::Css(css)).await.ok()?;
            found.is_displayed().await.ok().filter(|shown| *shown)?;
            Some(found)
        })
        .await
    }

    pub async fn click(&self, css: &str) {
        self.find(css).await.click().await.unwrap();
    }

    pub async fn fill(&self, css: &str, text: &str) {
        self.find(css).await.send_keys(text).await.unwrap();
    }

    /// The visible text of an element, asked for again and again until `holds`.
    pub async fn wait_text(&self, css: &str, what: &str, holds: impl Fn(&str) -> bool) -> String {
        wait_for_async(&format!("'{css}' says {what}"), SOON, || async {
            let text = self
                .client
                .find(Locator::Css(css))
                .await
                .ok()?
                .text()
                .await
                .ok()?;
            holds(&text).then_some(text)
        })
        .await
    }

    /// Waits until `css` has this text in it.
    pub async fn wait_for(&self, css: &str, text: &str) -> String {
        self.wait_text(css, &format!("'{text}'"), |found| found.contains(text))
            .await
    }

    /// The value of a script's `return`.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// A command of Chromium's own protocol.
    pub async fn command(&self, name: &str, params: Value) {
        self.drive("goog/cdp/execute", json!({ "cmd": name, "params": params }))
            .await;
    }

    /// As with a system in dark, or light, colours.
    pub async fn colours(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.command(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// As on a screen of this size.
    pub async fn screen(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// What the console holds that is an error, since this was asked last.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.drive("se/log", json!({ "type": "browser" })).await;
        let entries = log.as_array().unwrap().iter();
        let severe = entries.filter(|entry| entry["level"] == "SEVERE");
        severe
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// The page as a picture.
    pub async fn picture(&self) -> Vec<u8> {
        self.client.screenshot().await.unwrap()
    }

    /// Ends the browser, which a dropped value leaves to its driver.
    pub async fn close(self) {
        self.client.close().await.unwrap();
    }

    async fn drive(&self, command: &str, body: Value) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        let answer = http::ask(
            "POST",
            &self.address,
            &path,
            "content-type: application/json\r\n",
            &body.to_string(),
        )
        .await;
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, 200, "{command}: {value}");
        value["value"].clone()
    }
}
