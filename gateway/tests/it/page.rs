//! The status page, as a browser shows it.

use std::time::Duration;

use officernd_auth::testing::{Fault, Simulator};
use serde_json::Value;

use crate::browser::Browser;
use crate::child::{Gateway, LOCATIONS};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_follows_the_token_in_a_browser() {
    let simulator = Simulator::builder()
        .token_life(Duration::from_secs(600))
        .start()
        .await
        .unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let Some(mut browser) = Browser::open(&gateway.url("/")).await else {
        println!("skipped: no Chromium here");
        return;
    };
    let shows = |id: &str, text: &str| {
        let text = Value::from(text);
        format!("document.getElementById('{id}')?.textContent === {text}")
    };
    browser.until(&shows("phase", "fresh")).await;
    browser.until(&shows("left-of", "left of 10 min")).await;
    browser.until(&shows("used", "1")).await;
    let width = "parseFloat(document.getElementById('life').style.width)";
    let before = browser.evaluate(width).await.as_f64().unwrap();
    browser.until(&format!("{width} < {before} - 0.1")).await;

    for path in [LOCATIONS, LOCATIONS, LOCATIONS, "/api/v2/nothing"] {
        gateway.get(path).await;
    }
    browser.until(&shows("total", "4")).await;
    let bars = "document.querySelectorAll('#requests rect').length > 2";
    browser.until(bars).await;

    // What happens to the token is told without a reload.
    simulator.revoke_all();
    assert_eq!(gateway.get(LOCATIONS).await.0, 200);
    browser.until(&shows("generation", "number 2")).await;
    browser
        .until("document.body.textContent.includes('rejected')")
        .await;
    simulator.api_faults().always(Fault::Reset);
    assert_eq!(gateway.get(LOCATIONS).await.0, 502);
    let error = "document.getElementById('error-text').textContent.includes('broke off')";
    browser.until(error).await;
    let page = browser.evaluate("document.documentElement.outerHTML").await;
    assert!(!page.as_str().unwrap().contains("Bearer"));
    assert_eq!(browser.complaints, Vec::<Value>::new());

    // A gateway that comes back is found again, without a reload.
    let addr = gateway.addr.to_string();
    drop(gateway);
    browser.until(&shows("phase", "gateway gone")).await;
    let more = [("GATEWAY_LISTEN", addr.as_str())];
    let _gateway = Gateway::start(&simulator, simulator.url(), &more);
    browser.until(&shows("phase", "fresh")).await;
    browser.close().await;
}

#[tokio::test]
async fn the_page_is_whole_in_itself_and_runs_no_script_but_its_own() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let response = gateway.fetch("/").await;
    let headers = response.headers();
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let page = response.text().await.unwrap();
    assert!(page.contains("/page.js") && page.contains("/page.css"));
    for path in ["/", "/page.js", "/page.css"] {
        let (status, text) = gateway.get(path).await;
        assert_eq!(status, 200);
        for outside in [
            "https://",
            "src=\"//",
            "@import",
            "url(",
            "innerHTML",
            " style=",
        ] {
            assert!(!text.contains(outside), "{outside} in {path}");
        }
    }
}
