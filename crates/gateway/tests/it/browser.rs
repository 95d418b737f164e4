//! Headless Chromium, spoken to over its debugging pipe.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

use crate::child::{BOUND, within};

pub(crate) struct Browser {
    child: tokio::process::Child,
    profile: PathBuf,
    said: tokio::io::BufReader<tokio::process::ChildStdout>,
    session: Value,
    asked: u64,
    /// What the page did wrong: exceptions, errors, breaches of its policy.
    pub(crate) complaints: Vec<Value>,
}

impl Browser {
    /// `None` where no Chromium is.
    pub(crate) async fn open(url: &str) -> Option<Self> {
        let chromium = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| Command::new(name).arg("--version").output().is_ok())?;
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        let nth = OPENED.fetch_add(1, Ordering::Relaxed);
        let profile = format!("gateway-page-{}-{nth}", std::process::id());
        let profile = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(profile);
        // The pipe is its descriptors 3 and 4.
        let mut child = tokio::process::Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" \"$@\" 3<&0 4>&1 >/dev/null 2>&1",
                chromium,
            ])
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut browser = Self {
            said: tokio::io::BufReader::new(child.stdout.take().unwrap()),
            child,
            profile,
            session: Value::Null,
            asked: 0,
            complaints: Vec::new(),
        };
        let blank = json!({ "url": "about:blank" });
        let target = browser.ask("Target.createTarget", blank).await;
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", target).await;
        browser.session = session["sessionId"].clone();
        browser.ask("Log.enable", json!({})).await;
        browser.ask("Runtime.enable", json!({})).await;
        browser.ask("Page.navigate", json!({ "url": url })).await;
        Some(browser)
    }

    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": params });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(&bytes).await.unwrap();
        loop {
            let mut answer = Vec::new();
            within(self.said.read_until(0, &mut answer)).await.unwrap();
            assert_eq!(answer.pop(), Some(0), "Chromium is gone");
            let mut answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            let event = answer["method"].as_str().unwrap_or_default();
            if matches!(event, "Log.entryAdded" | "Runtime.exceptionThrown") {
                self.complaints.push(answer["params"].take());
            }
        }
    }

    pub(crate) async fn evaluate(&mut self, script: &str) -> Value {
        let params = json!({ "expression": script, "returnByValue": true });
        self.ask("Runtime.evaluate", params).await["result"]["value"].take()
    }

    /// A screen of this width, in CSS pixels, and this color scheme.
    pub(crate) async fn emulate(&mut self, width: u32, scheme: &str) {
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let media = json!({ "features": scheme });
        self.ask("Emulation.setEmulatedMedia", media).await;
    }

    /// Saves what it shows as base64 in the folder that `GATEWAY_SCREENSHOTS`
    /// names, for a person to look at.
    pub(crate) async fn screenshot(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("GATEWAY_SCREENSHOTS") else {
            return;
        };
        let whole = json!({ "captureBeyondViewport": true });
        let picture = self.ask("Page.captureScreenshot", whole).await;
        let file = PathBuf::from(folder).join(format!("{name}.png.base64"));
        std::fs::write(file, picture["data"].as_str().unwrap()).unwrap();
    }

    /// Ends it, with the processes of its own that write to its profile.
    pub(crate) async fn close(mut self) {
        self.session = Value::Null;
        self.ask("Browser.close", json!({})).await;
        within(self.child.wait()).await.unwrap();
    }

    /// Waits until a script says true.
    pub(crate) async fn until(&mut self, script: &str) {
        let said = tokio::time::timeout(BOUND, async {
            while self.evaluate(script).await != true {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        assert!(said.await.is_ok(), "not: {script}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
