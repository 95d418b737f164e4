//! What upstream sends cannot act in a browser on this machine.

use axum::body::Body;
use axum::http::Response;
use officernd_simulator::Simulator;
use serde_json::Value;

use crate::browser::Browser;
use crate::child::{Gateway, upstream};

/// An API whose answers are a page with a script, and headers for browsers.
async fn hostile() -> String {
    upstream(|_| async {
        let page = "<title>before</title><h1>page</h1><script>document.title = 'ran'</script>";
        Response::builder()
            .header("content-type", "text/html")
            .header("content-security-policy", "script-src *")
            .header("clear-site-data", "\"*\"")
            .header("service-worker-allowed", "/")
            .header("access-control-allow-origin", "*")
            .header("access-control-allow-credentials", "true")
            .header("strict-transport-security", "max-age=1")
            .header("refresh", "0; url=https://evil.example/")
            .header("set-cookie", "a=b")
            .header("x-total", "7")
            .body(Body::from(page))
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn headers_for_browsers_do_not_pass() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, &hostile().await, &[]);
    let response = gateway.fetch("/api/v2/page").await;
    let headers = response.headers();
    let mut policies = headers.get_all("content-security-policy").iter();
    assert_eq!(policies.next().unwrap(), "sandbox; default-src 'none'");
    assert_eq!(policies.next(), None);
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
    assert_eq!(headers["x-total"], "7");
    for name in [
        "clear-site-data",
        "service-worker-allowed",
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "strict-transport-security",
        "refresh",
        "set-cookie",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_from_upstream_runs_no_script() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, &hostile().await, &[]);
    let Some(mut browser) = Browser::open(&gateway.url("/api/v2/page")).await else {
        println!("skipped: no Chromium here");
        return;
    };
    browser
        .until("document.querySelector('h1')?.textContent === 'page'")
        .await;
    assert_eq!(browser.evaluate("document.title").await, "before");
    // An origin of its own: it could not read the API either.
    assert_eq!(browser.evaluate("self.origin").await, "null");
    let refused = |complaint: &Value| complaint.to_string().contains("sandboxed");
    assert!(browser.complaints.iter().any(refused));
    browser.close().await;
}
