//! The client of the gateway: proxies, explained failures, and requests that are sent again.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use officernd_simulator::{Fault, Simulator};
use serde_json::Value;

use crate::child::{Gateway, LOCATIONS, output, until, upstream, within};
use crate::network::{APP, IDENTITY, Network, Proxy, refusing, scripted};

const ACME: &str = "/api/v2/organizations/acme/locations";

#[tokio::test]
async fn tokens_and_the_api_both_go_through_the_proxy() {
    let network = Network::start("proxied").await;
    let proxy = Proxy::start(&network, "200 OK").await;
    let mut command = network.command(IDENTITY, APP);
    // The first one decides.
    command
        .env("HTTPS_PROXY", proxy.with_password())
        .env("https_proxy", "socks5://127.0.0.1:1080")
        .env("ALL_PROXY", "socks5://127.0.0.1:1080");
    let gateway = Gateway::spawn(command);
    // Byte for byte: an escape, a quote, a doubled slash.
    let odd = format!("{ACME}//a%2fb?it's=%20|x");
    let answer = gateway.raw(format!(
        "GET {odd} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    ));
    assert!(answer.await.starts_with("HTTP/1.1 200"));
    assert_eq!(gateway.get(ACME).await.0, 200);
    assert!(proxy.was_asked_for("identity.invalid") && proxy.was_asked_for("app.invalid"));
    for head in proxy.asked() {
        // me:p@ss:
        let basic = "Proxy-Authorization: Basic bWU6cEBzczo=\r\n";
        assert!(head.contains(basic), "{head}");
    }
    let requests = network.officernd.requests();
    let sent = requests
        .iter()
        .find(|request| request.uri.path().contains("//a"));
    let sent = sent.unwrap();
    assert_eq!(sent.uri, odd.as_str());
    assert!(!sent.headers.contains_key("accept"), "{:?}", sent.headers);
    assert!(!gateway.said().contains("p@ss") && !gateway.said().contains("p%40ss"));
}

#[tokio::test]
async fn no_proxy_names_the_hosts_that_are_reached_directly() {
    let network = Network::start("direct").await;
    let proxy = Proxy::start(&network, "200 OK").await;
    let mut command = network.command(&network.token_url(), APP);
    command
        .env("HTTPS_PROXY", "")
        .env("https_proxy", "socks5://127.0.0.1:1080")
        .env("ALL_PROXY", &proxy.url)
        .env("NO_PROXY", "other.example, localhost");
    let gateway = Gateway::spawn(command);
    assert_eq!(gateway.get(ACME).await.0, 200);
    assert!(proxy.was_asked_for("app.invalid"));
    assert!(!proxy.asked().iter().any(|head| head.contains("localhost")));
    // Plain http is on this machine, and goes past any proxy.
    let simulator = &network.officernd;
    let more = [
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("HTTP_PROXY", "http://127.0.0.1:1"),
    ];
    let gateway = Gateway::start(simulator, simulator.url(), &more);
    assert_eq!(gateway.get(ACME).await.0, 200);
}

#[tokio::test]
async fn a_proxy_that_cannot_be_used_stops_the_start() {
    let network = Network::start("no-proxy").await;
    for (name, proxy) in [
        ("https_proxy", "socks5://127.0.0.1:1080"),
        ("https_proxy", "http://"),
        ("HTTPS_PROXY", "http//proxy:3128"),
        ("all_proxy", "socks5://127.0.0.1:1080"),
    ] {
        let mut command = network.command(IDENTITY, APP);
        command.env(name, proxy);
        let (code, said) = output(command).await;
        assert_eq!(code, Some(2), "{said}");
        let problem = format!("{name}: is not http://HOST:PORT");
        assert!(said.contains(&problem), "{said}");
    }
}

/// What stands between the gateway and a server, and the words for it.
#[tokio::test]
async fn each_cause_has_its_words_in_the_log_in_check_and_in_readyz() {
    let network = Network::start("causes").await;
    let wants_password = Proxy::start(&network, "407 Proxy Authentication Required").await;
    let forbids = Proxy::start(&network, "403 Forbidden").await;
    let (_bound, nowhere) = refusing();
    let nowhere = format!("https://{nowhere}");
    let lost = format!("http://{}", nowhere.trim_start_matches("https://"));
    let own = network.certificate.as_str();
    #[rustfmt::skip]
    let cases = [
        ("DNS", APP, "", own, "the host name does not resolve"),
        ("refused", nowhere.as_str(), "", own, "the connection was refused"),
        ("unknown CA", network.url.as_str(), "", "", "the certificate is from an unknown CA"),
        ("proxy: 407", APP, wants_password.url.as_str(), own, "user name and a password (407)"),
        ("proxy: 403", APP, forbids.url.as_str(), own, "the proxy refused the connection"),
        ("no proxy there", APP, lost.as_str(), own, "the proxy cannot be reached"),
    ];
    for (name, server, proxy, certificate, words) in cases {
        let change = |command: &mut std::process::Command| {
            if !proxy.is_empty() {
                command.env("HTTPS_PROXY", proxy);
            }
            if certificate.is_empty() {
                command.env_remove("SSL_CERT_FILE");
            }
        };
        // The token endpoint's side, then the API's.
        let plain = &network.officernd;
        for (side, token_url, api) in [
            ("token", format!("{server}/oauth/token"), plain.url()),
            ("API", plain.token_url(), server),
        ] {
            let mut command = network.command(&token_url, api);
            change(&mut command);
            let gateway = Gateway::spawn(command);
            let (status, answer) = gateway.get(ACME).await;
            let expected = if side == "API" { 502 } else { 503 };
            assert_eq!(status, expected, "{name}: {answer}");
            assert!(answer.contains(words), "{name}: {answer}");
            let logged = |line: &str| line.contains("WARN") && line.contains(words);
            until(|| gateway.said().lines().any(logged)).await;
            let (ready, body) = gateway.get("/readyz").await;
            let body: Value = serde_json::from_str(&body).unwrap();
            let problem = match side {
                "API" => &body["last_api_failure"],
                _ => &body["organizations"][0]["problem"],
            };
            assert!(problem.as_str().unwrap().contains(words), "{name}: {body}");
            assert_eq!(ready, if side == "API" { 200 } else { 503 }, "{name}");
            let mut command = network.command(&token_url, api);
            change(&mut command);
            command.arg("check");
            let (code, said) = output(command).await;
            assert_eq!(code, Some(3), "{name}: {said}");
            assert!(said.contains(words), "{name}: {said}");
        }
    }
}

#[tokio::test]
async fn failures_with_one_cause_are_logged_once_a_second_with_a_count() {
    let simulator = Simulator::start().await.unwrap();
    let (_bound, nowhere) = refusing();
    let gateway = Gateway::start(&simulator, &format!("http://{nowhere}"), &[]);
    let started = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(gateway.get(LOCATIONS).await.0, 502);
    }
    let lines = || {
        let said = gateway.said();
        said.lines()
            .filter(|line| line.contains("a request to the API failed"))
            .count()
    };
    let most = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    until(|| lines() >= 1).await;
    assert!(lines() <= most, "{}", gateway.said());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(gateway.get(LOCATIONS).await.0, 502);
    let counted = || {
        let said = gateway.said();
        let counts = said
            .lines()
            .filter_map(|line| line.rsplit_once("not_logged="));
        let counts = counts.filter_map(|(_, count)| count.trim().parse::<usize>().ok());
        counts.sum::<usize>() + lines()
    };
    until(|| counted() == 51).await;
}

fn path_of(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_whose_connection_closed_is_sent_once_more_if_that_is_safe() {
    let simulator = Simulator::start().await.unwrap();
    // The first request for a path gets no answer, on a new connection or on a used one.
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let (api, heads) = scripted(move |head| {
        let path = path_of(head).to_owned();
        let closes = match path.as_str() {
            "/api/ok" => false,
            "/api/never" => true,
            _ => seen.lock().unwrap().insert(path),
        };
        match closes {
            true if path_of(head) == "/api/half-head" => Some("HTTP/1.1 200 OK\r\ncontent-le"),
            true => None,
            false => Some(OK),
        }
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    let send = async |method: &str, path: &str, body: &str| {
        let url = gateway.url(path);
        let method = method.parse().unwrap();
        let request = gateway.http.request(method, url);
        let request = match body {
            "" => request,
            body => request.body(body.to_owned()),
        };
        request.send().await.unwrap().status().as_u16()
    };
    for used in [false, true] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            if used {
                assert_eq!(send("GET", "/api/ok", "").await, 200);
            }
            let path = format!("/api/{method}-{used}");
            assert_eq!(send(method, &path, "").await, 200, "{path}");
        }
    }
    // A part of a head counts as none.
    assert_eq!(send("GET", "/api/half-head", "").await, 200);
    for (method, path, body, sent) in [
        ("POST", "/api/post", "", 1),
        ("PATCH", "/api/patch", "", 1),
        ("PUT", "/api/put", "{}", 1),
        ("DELETE", "/api/delete", "{}", 1),
        ("GET", "/api/never", "", 2),
    ] {
        assert_eq!(send(method, path, body).await, 502, "{method}");
        let is_path = |head: &&String| path_of(head) == path;
        let times = heads.lock().unwrap().iter().filter(is_path).count();
        assert_eq!(times, sent, "{method}");
    }
    let (_, answer) = gateway.get("/api/never").await;
    assert!(answer.contains("closed before a response"), "{answer}");
}

#[tokio::test]
async fn the_answer_timeout_waits_for_a_moving_body_then_answers_504() {
    let simulator = Simulator::start().await.unwrap();
    let api = upstream(|request: Request<Incoming>| async move {
        let hangs = request.uri().path() == "/api/hang";
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if hangs {
            std::future::pending::<()>().await;
        }
        Response::new(Body::from(body.len().to_string()))
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[("GATEWAY_ANSWER_TIMEOUT", "4s")]);
    // Twice as long as the time-out.
    let slow = stream::iter(0..16).then(|_| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 1000]))
    });
    let mut client = crate::forward::connection(&gateway).await;
    let body = StreamBody::new(slow.map(|chunk| chunk.map(Frame::data)));
    let request = Request::post("/api/up").header("host", "localhost");
    let request = request.body(BodyExt::boxed(body)).unwrap();
    let answer = within(client.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(within(answer.collect()).await.unwrap().to_bytes(), "16000");
    // The timeout starts at the end of the body.
    let hang = gateway.http.post(gateway.url("/api/hang")).body("body");
    let hang = hang.send().await.unwrap();
    assert_eq!(hang.status(), 504);
    assert_eq!(hang.headers()["content-type"], "application/json");
    let problem: Value = serde_json::from_str(&hang.text().await.unwrap()).unwrap();
    let problem = problem["error"].as_str().unwrap();
    assert!(
        problem.ends_with(": the API did not answer in time"),
        "{problem}"
    );
    let (_, metrics) = gateway.get("/metrics").await;
    let counted = "method=\"POST\",http_response_status_code=\"504\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    for path in ["/", "/readyz"] {
        let (_, shown) = gateway.get(path).await;
        assert!(shown.contains("did not answer in time"), "{path}: {shown}");
    }
}

#[tokio::test]
async fn the_answer_timeout_does_not_include_the_wait_for_a_token() {
    let simulator = Simulator::start().await.unwrap();
    let token = Fault::Delay(Duration::from_millis(2500));
    simulator.token_faults().always(token);
    let api = Fault::Delay(Duration::from_secs(2));
    simulator.api_faults().always(api);
    let more = [("GATEWAY_ANSWER_TIMEOUT", "3s")];
    let gateway = Gateway::start(&simulator, simulator.url(), &more);
    let post = gateway.http.post(gateway.url(LOCATIONS)).body("body");
    let (get, post) = tokio::join!(gateway.get(LOCATIONS), post.send());
    assert_eq!(get.0, 200, "{}", get.1);
    assert_eq!(post.unwrap().status(), 200);
    // A 401, the next token and the replay.
    simulator.revoke_all();
    let (status, answer) = gateway.get(LOCATIONS).await;
    assert_eq!(status, 200, "{answer}");

    let more = [
        ("GATEWAY_ANSWER_TIMEOUT", "100ms"),
        ("OFFICERND_ACQUIRE_TIMEOUT", "1s"),
    ];
    let gateway = Gateway::start(&simulator, simulator.url(), &more);
    let response = gateway.fetch(LOCATIONS).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
}
