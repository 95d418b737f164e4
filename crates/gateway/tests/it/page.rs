//! The status page, as a browser shows it.

use std::time::Duration;

use officernd_simulator::{Fault, Simulator};
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
    let lives = "document.querySelector('.left-of')?.textContent === 'left of 10 min'";
    browser.until(lives).await;
    let upstream = format!("upstream {}", simulator.url());
    browser.until(&shows("upstream", &upstream)).await;
    browser.until(&shows("used", "1")).await;
    let width = "parseFloat(document.querySelector('.bar i').style.width)";
    let before = browser.evaluate(width).await.as_f64().unwrap();
    browser.until(&format!("{width} < {before} - 0.1")).await;

    for path in [LOCATIONS, LOCATIONS, LOCATIONS, "/api/v2/nothing"] {
        gateway.get(path).await;
    }
    browser.until(&shows("total", "4")).await;
    let bars = "document.querySelectorAll('#requests rect').length > 2";
    browser.until(bars).await;

    // The page follows the token without a reload.
    simulator.revoke_all();
    assert_eq!(gateway.get(LOCATIONS).await.0, 200);
    let second = "document.querySelector('.generation').textContent === 'number 2'";
    browser.until(second).await;
    let rejected = "document.getElementById('list').textContent.includes('rejected')";
    browser.until(rejected).await;
    simulator.api_faults().always(Fault::Reset);
    assert_eq!(gateway.get(LOCATIONS).await.0, 502);
    let error = "document.getElementById('error-text').textContent.includes('broke off')";
    browser.until(error).await;
    let page = browser.evaluate("document.documentElement.outerHTML").await;
    assert!(!page.as_str().unwrap().contains("Bearer"));
    assert_eq!(browser.complaints, Vec::<Value>::new());

    // A gateway that comes back is found again, without a reload.
    let addr = gateway.admin.to_string();
    drop(gateway);
    browser.until(&shows("phase", "gateway gone")).await;
    let more = [("GATEWAY_ADMIN", addr.as_str())];
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

/// The contrast of an element's text with what is behind it (WCAG 2).
const CONTRAST: &str = "(selector => {
    const parse = color => {
        const canvas = document.createElement('canvas').getContext('2d');
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = color => parse(color)
        .map(part => part / 255)
        .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, n) => sum + part * [0.2126, 0.7152, 0.0722][n], 0);
    const node = document.querySelector(selector);
    let behind = node;
    while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentNode;
    const [a, b] = [getComputedStyle(node).color, getComputedStyle(behind).backgroundColor].map(light);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_legible_on_a_phone_and_in_the_dark() {
    let simulator = Simulator::start().await.unwrap();
    let more = [("OFFICERND_ORG_SLUG", "simulated-org")];
    let gateway = Gateway::start(&simulator, simulator.url(), &more);
    let Some(mut browser) = Browser::open(&gateway.url("/")).await else {
        println!("skipped: no Chromium here");
        return;
    };
    for path in [LOCATIONS, LOCATIONS, "/api/v2/nothing"] {
        gateway.get(path).await;
    }
    browser
        .until("document.getElementById('total')?.textContent === '3'")
        .await;
    let organization =
        "document.getElementById('organization').textContent.includes('simulated-org')";
    assert_eq!(browser.evaluate(organization).await, true);
    let mut grounds = Vec::new();
    for (width, scheme) in [
        (360, "light"),
        (360, "dark"),
        (1200, "light"),
        (1200, "dark"),
    ] {
        browser.emulate(width, scheme).await;
        let wide = "document.documentElement.scrollWidth";
        browser
            .until(&format!("{wide} <= {width} && innerWidth === {width}"))
            .await;
        let scheme_is = format!("matchMedia('(prefers-color-scheme: {scheme})').matches");
        browser.until(&scheme_is).await;
        for text in [
            "h1",
            ".right",
            ".left",
            "h2",
            ".scope",
            "#list td",
            "#error-text",
        ] {
            let contrast = browser.evaluate(&format!("{CONTRAST}('{text}')")).await;
            assert!(
                contrast.as_f64().unwrap() >= 4.5,
                "{text}, {scheme}: {contrast}"
            );
        }
        let size = "parseFloat(getComputedStyle(document.querySelector('.scope')).fontSize)";
        assert!(browser.evaluate(size).await.as_f64().unwrap() >= 12.0);
        let ground = "getComputedStyle(document.body).backgroundColor";
        grounds.push(browser.evaluate(ground).await);
        browser.screenshot(&format!("{width}-{scheme}")).await;
    }
    assert_ne!(grounds[0], grounds[1]);
    assert_eq!(browser.complaints, Vec::<Value>::new());
    browser.close().await;
}
