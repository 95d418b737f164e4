//! Tests of the simulator over real connections.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what must hold"
)]

use std::time::Duration;

use officernd_simulator::{Fault, Simulator, SimulatorBuilder};
use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time;

const FORM: &str = "application/x-www-form-urlencoded";
const MEMBERS: &str = "/api/v2/organizations/simulated-org/members";
const UNAUTHORIZED: &str =
    r#"{"statusCode":401,"message":"Unauthorized access","error":"Unauthorized"}"#;

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn token(&self) -> String {
        self.json()["access_token"].as_str().unwrap().to_owned()
    }

    fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap().into())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A simulator, and a client of it.
struct Scene {
    simulator: Simulator,
    client: Client,
}

impl Scene {
    async fn new(settings: SimulatorBuilder) -> Self {
        let simulator = settings.start().await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        Self { simulator, client }
    }

    async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<Reply> {
        let reply = request.send().await?;
        Ok(Reply {
            status: reply.status().as_u16(),
            headers: reply.headers().clone(),
            body: reply.text().await?,
        })
    }

    fn fields(&self) -> [(&'static str, String); 4] {
        [
            ("client_id", self.simulator.client_id()),
            ("client_secret", self.simulator.client_secret()),
            ("grant_type", "client_credentials".into()),
            ("scope", self.simulator.scope()),
        ]
    }

    /// Sends a token request that is good except for this field.
    async fn token_with(&self, name: &str, value: &str) -> Reply {
        let mut fields = self.fields();
        let field = fields.iter_mut().find(|(field, _)| *field == name);
        field.unwrap().1 = value.into();
        self.post(FORM, form(&fields)).await.unwrap()
    }

    async fn token(&self) -> Reply {
        self.try_token().await.unwrap()
    }

    async fn try_token(&self) -> reqwest::Result<Reply> {
        self.post(FORM, form(&self.fields())).await
    }

    async fn post(&self, content_type: &str, body: String) -> reqwest::Result<Reply> {
        let request = self.client.post(self.simulator.token_url());
        self.try_send(request.header("content-type", content_type).body(body))
            .await
    }

    async fn api(&self, method: &str, path: &str, authorizations: &[&str]) -> Reply {
        let url = format!("{}{path}", self.simulator.url());
        let mut request = self.client.request(method.parse().unwrap(), url);
        for value in authorizations {
            request = request.header("authorization", *value);
        }
        self.try_send(request).await.unwrap()
    }

    /// Returns the status of a request with this token.
    async fn status_with(&self, token: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        self.api("GET", MEMBERS, &[&bearer]).await.status
    }

    /// Returns the statuses of all requests so far.
    fn statuses(&self) -> Vec<Option<u16>> {
        self.simulator.requests().iter().map(|r| r.status).collect()
    }
}

fn form(fields: &[(&str, String)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields).finish()
}

fn free() -> SimulatorBuilder {
    Simulator::builder().no_rate_limit()
}

/// Advances tokio's clock, and lets it run again: a paused clock jumps while the test waits for a socket.
async fn pass(time: Duration) {
    time::pause();
    time::advance(time).await;
    time::resume();
}

async fn until(so: impl Fn() -> bool) {
    while !so() {
        tokio::task::yield_now().await;
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_good_token_request_gets_a_token_that_the_api_accepts() {
    let scene = Scene::new(Simulator::builder()).await;
    let reply = scene.token().await;
    let token = reply.token();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(
        reply.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    let expected = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "officernd.api.read officernd.api.write",
    });
    assert_eq!(reply.json(), expected);
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        for path in ["/api/v1/organizations/simulated-org/x", MEMBERS] {
            let bearer = format!("bearer {token}");
            let reply = scene.api(method, path, &[&bearer]).await;
            assert_eq!(reply.status, 200, "{method} {path}");
            assert_eq!(method != "HEAD", reply.body.contains("Main Street"));
        }
    }
    // Each token is new, and no other simulator accepts it.
    assert_ne!(scene.token().await.token(), token);
    assert_eq!(Scene::new(free()).await.status_with(&token).await, 401);
}

#[tokio::test]
async fn a_wrong_token_request_is_refused_with_its_code() {
    let scene = Scene::new(free()).await;
    let good = form(&scene.fields());
    for (content_type, body) in [
        ("application/json", "{}".into()),
        ("text/plain", good.clone()),
        (FORM, good.clone() + "&scope=officernd.api.read"),
    ] {
        let reply = scene.post(content_type, body).await.unwrap();
        assert_eq!(reply.error(), (400, "invalid_request".into()));
    }
    let two_scopes = "officernd.api.read flex.space.resources.read";
    for (field, value, status, error) in [
        ("client_id", "", 400, "invalid_request"),
        ("client_secret", "", 400, "invalid_request"),
        ("grant_type", "", 400, "invalid_request"),
        ("scope", "", 400, "invalid_request"),
        ("client_id", "wrong", 401, "invalid_client"),
        ("client_secret", "wrong", 401, "invalid_client"),
        ("grant_type", "password", 400, "unsupported_grant_type"),
        ("scope", two_scopes, 400, "invalid_scope"),
        ("scope", "Officernd.api.read", 400, "invalid_scope"),
        ("scope", " ", 400, "invalid_scope"),
    ] {
        let reply = scene.token_with(field, value).await;
        assert_eq!(reply.error(), (status, error.into()), "{field} {value:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn credentials_may_have_any_characters_and_a_request_fewer_scopes() {
    let scene = Scene::new(free().credentials("a&b=c d", "ü%+/\"=")).await;
    let [(_, id), (_, secret), ..] = scene.simulator.env();
    assert_eq!((&*id, &*secret), ("a&b=c d", "ü%+/\"="));
    let content_type = "Application/X-WWW-Form-Urlencoded; charset=utf-8";
    let reply = scene.post(content_type, form(&scene.fields())).await;
    assert_eq!(reply.unwrap().status, 200);
    let fewer = scene.token_with("scope", " officernd.api.read").await;
    assert_eq!(fewer.json()["scope"], "officernd.api.read");
}

#[tokio::test]
async fn other_methods_and_paths_are_not_served() {
    let scene = Scene::new(free()).await;
    let get = scene.api("GET", "/oauth/token", &[]).await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    for path in [
        "/",
        "/oauth/token/",
        "/api/v3/organizations/simulated-org/members",
    ] {
        assert_eq!(scene.api("GET", path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(scene.api("TRACE", MEMBERS, &[]).await.status, 405);
}

#[tokio::test]
async fn the_sixth_request_of_a_minute_is_refused_failed_ones_counted() {
    let scene = Scene::new(Simulator::builder()).await;
    scene.simulator.token_faults().next(1, Fault::Status(503));
    assert_eq!(scene.token().await.status, 503);
    assert_eq!(scene.api("GET", "/oauth/token", &[]).await.status, 405);
    assert_eq!(scene.token_with("client_secret", "wrong").await.status, 401);
    assert_eq!(scene.token_with("scope", "nothing").await.status, 400);
    assert_eq!(scene.token().await.status, 200);

    let refused = scene.token().await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.body, "Too many requests, please try again later.");
    assert_eq!(
        refused.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(refused.header("retry-after"), None);
    assert_eq!(scene.simulator.token_requests(), 6);
    assert_eq!(scene.simulator.tokens_issued(), 1);

    pass(seconds(60)).await;
    assert_eq!(scene.token().await.status, 200);
    assert_eq!(scene.simulator.max_token_requests_in(seconds(60)), 6);
    assert_eq!(scene.simulator.max_token_requests_in(seconds(3600)), 7);
}

#[tokio::test]
async fn the_rate_limit_can_be_set_and_retry_after_is_long_enough() {
    let limited = Simulator::builder().rate_limit(2, seconds(30));
    let scene = Scene::new(limited.retry_after(true)).await;
    for _ in 0..2 {
        assert_eq!(scene.token().await.status, 200);
        pass(seconds(10)).await;
    }
    let refused = scene.token().await;
    // The refused request counts too: the second one must leave the window.
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((10..=20).contains(&wait), "{wait}");
    pass(seconds(wait)).await;
    assert_eq!(scene.token().await.status, 200);
}

#[tokio::test]
async fn a_token_expires_and_expires_in_is_at_least_a_second() {
    let scene = Scene::new(free().token_life(Duration::from_millis(2_500))).await;
    let first = scene.token().await;
    assert_eq!(first.json()["expires_in"], 2);
    scene.simulator.set_token_life(seconds(3_600));
    let second = scene.token().await;
    pass(seconds(3_590)).await;
    assert_eq!(scene.status_with(&first.token()).await, 401);
    assert_eq!(scene.status_with(&second.token()).await, 200);
    pass(seconds(10)).await;
    assert_eq!(scene.status_with(&second.token()).await, 401);

    scene.simulator.set_token_life(Duration::from_millis(300));
    let third = scene.token().await;
    assert_eq!(third.json()["expires_in"], 1);
    pass(Duration::from_millis(300)).await;
    assert_eq!(scene.status_with(&third.token()).await, 401);
}

#[tokio::test]
async fn secrets_apps_and_tokens_can_be_replaced_and_revoked() {
    let scene = Scene::new(free()).await;
    let officernd = &scene.simulator;
    let (old_secret, old) = (officernd.client_secret(), scene.token().await.token());
    officernd.set_secret("another");
    let refused = scene.token_with("client_secret", &old_secret).await;
    assert_eq!(refused.status, 401);
    assert_eq!(scene.token().await.status, 200);
    assert_eq!(scene.status_with(&old).await, 200);

    assert_eq!(scene.token_with("client_id", "second").await.status, 401);
    officernd.add_app("second", officernd.client_secret());
    let new = scene.token_with("client_id", "second").await.token();
    officernd.delete_app(&officernd.client_id());
    assert_eq!(officernd.client_secret(), "");
    assert_ne!(scene.token().await.status, 200);
    assert_eq!(scene.status_with(&old).await, 401);
    assert_eq!(scene.status_with(&new).await, 200);

    officernd.revoke_all();
    assert_eq!(scene.status_with(&new).await, 401);
}

#[tokio::test]
async fn without_a_good_token_every_path_of_the_api_is_the_same_401() {
    let scene = Scene::new(free()).await;
    let token = scene.token().await.token();
    let good = format!("Bearer {token}");
    let other = "/api/v2/organizations/other/members";
    let cases: [(&str, &[&str]); 8] = [
        (MEMBERS, &[]),
        (MEMBERS, &[""]),
        (MEMBERS, &["Bearer undefined"]),
        (MEMBERS, &["Bearer"]),
        (MEMBERS, &[&token]),
        (MEMBERS, &[&format!("Basic {token}")]),
        (MEMBERS, &[&good, &good]),
        (other, &[]),
    ];
    for (path, authorizations) in cases {
        let reply = scene.api("GET", path, authorizations).await;
        assert_eq!(reply.status, 401, "{path} {authorizations:?}");
        assert_eq!(reply.body, UNAUTHORIZED);
    }
    assert_eq!(scene.simulator.api_requests(), 8);
    assert_eq!(scene.simulator.api_unauthorized(), 8);
    // With a token, an organization other than the app's is not found.
    let reply = scene.api("GET", other, &[&good]).await;
    assert_eq!(reply.status, 500);
    assert_eq!(reply.json()["message"], "Organization not found");
}

#[tokio::test]
async fn a_path_can_require_a_scope() {
    let settings = free().require_scope_for("members", "officernd.api.write");
    let scene = Scene::new(settings).await;
    let all = scene.token().await.token();
    let read = scene.token_with("scope", "officernd.api.read").await;
    for (resource, token, status) in [
        ("members", &all, 200),
        ("members", &read.token(), 401),
        ("members/17/notes", &read.token(), 401),
        ("membership", &read.token(), 200),
    ] {
        let path = format!("/api/v2/organizations/simulated-org/{resource}");
        let bearer = format!("Bearer {token}");
        let reply = scene.api("GET", &path, &[&bearer]).await;
        assert_eq!(reply.status, status, "{resource}");
    }
}

#[tokio::test]
async fn faults_are_met_in_the_order_of_the_script() {
    let scene = Scene::new(free()).await;
    let faults = scene.simulator.token_faults();
    faults.always(Fault::Status(502));
    faults.next(2, Fault::Status(503));
    faults.next(1, Fault::Delay(Duration::ZERO));
    faults.next(1, Fault::Garbage);
    faults.next(0, Fault::Hang);
    assert_eq!(faults.pending(), 4);
    for status in [503, 503, 200] {
        assert_eq!(scene.token().await.status, status);
    }
    let garbage = scene.token().await;
    assert_eq!(garbage.status, 200);
    assert_eq!(
        garbage.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(faults.pending(), 0);
    assert_eq!(scene.token().await.status, 502);
    assert_eq!(scene.token().await.status, 502);
    faults.clear();
    assert_eq!(scene.token().await.status, 200);
    assert_eq!(scene.simulator.token_requests(), 7);
}

#[tokio::test]
async fn a_response_can_be_anything_but_broken_framing() {
    let scene = Scene::new(free()).await;
    let faults = scene.simulator.token_faults();
    let headers = [
        ("x-odd", "yes"),
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("no such name", "x"),
        ("x-bad", "a\nb"),
    ];
    let response = Fault::Response {
        status: 418,
        headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
        body: "short and stout".into(),
    };
    faults.next(1, response);
    let reply = scene.token().await;
    assert_eq!((reply.status, reply.header("x-odd")), (418, Some("yes")));
    assert_eq!(reply.body, "short and stout");
    assert_eq!(reply.header("x-bad"), None);
    for odd in [0, 99, 101, 1000] {
        faults.next(1, Fault::Status(odd));
        assert_eq!(scene.token().await.status, 500, "{odd}");
    }
    faults.next(1, Fault::json(204, "{}"));
    assert_eq!(scene.token().await.body, "");
}

#[tokio::test]
async fn a_reset_closes_the_connection_without_a_response() {
    let scene = Scene::new(free()).await;
    scene.simulator.api_faults().next(1, Fault::Reset);
    let mut stream = TcpStream::connect(scene.simulator.addr()).await.unwrap();
    let request = b"GET /api/ HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The next connection is served.
    assert_eq!(scene.token().await.status, 200);
    assert_eq!(scene.statuses(), [None, Some(200)]);
}

#[tokio::test]
async fn a_hanging_request_stays_open_until_its_client_leaves() {
    let scene = Scene::new(free()).await;
    scene.simulator.token_faults().next(1, Fault::Hang);
    // A request that has only arrived would leave the fault to the next one.
    let met = until(|| scene.simulator.token_faults().pending() == 0);
    tokio::select! {
        _ = scene.try_token() => panic!("a hanging request got a response"),
        () = met => {}
    }
    assert_eq!(scene.token().await.status, 200);
    assert_eq!(scene.statuses(), [None, Some(200)]);
}

#[tokio::test]
async fn a_delay_is_before_the_token_is_issued_and_latency_after() {
    let scene = Scene::new(free().token_life(seconds(20))).await;
    let (officernd, faults) = (&scene.simulator, scene.simulator.token_faults());
    faults.next(1, Fault::Delay(seconds(30)));
    officernd.set_latency(seconds(40));
    let later = async {
        until(|| faults.pending() == 0).await;
        assert_eq!(officernd.tokens_issued(), 0);
        pass(seconds(31)).await;
        until(|| officernd.tokens_issued() == 1).await;
        assert_eq!(scene.statuses(), [None]);
        pass(seconds(41)).await;
    };
    let (reply, ()) = tokio::join!(scene.token(), later);
    assert_eq!(reply.json()["expires_in"], 20);
    assert_eq!(scene.status_with(&reply.token()).await, 401);
}

#[tokio::test]
async fn requests_are_recorded_and_debug_shows_no_token() {
    let scene = Scene::new(free()).await;
    let token = scene.token().await.token();
    pass(seconds(5)).await;
    let (path, bearer) = (format!("{MEMBERS}?key={token}"), format!("Bearer {token}"));
    scene.api("GET", &path, &[&bearer]).await;

    let [first, second] = &scene.simulator.requests()[..] else {
        panic!("{:?}", scene.simulator);
    };
    assert_eq!(first.method, "POST");
    assert_eq!(first.uri, "/oauth/token");
    assert_eq!(first.authorization(), None);
    assert_eq!(first.headers["content-type"], FORM);
    assert_eq!(first.body, form(&scene.fields()));
    assert_eq!(second.uri, *path);
    assert_eq!(second.authorization(), Some(&*bearer));
    assert!(second.at - first.at >= seconds(5));
    let shown = format!("{first:?} {second:?}");
    assert!(shown.contains(MEMBERS), "{shown}");
    for secret in [token, scene.simulator.client_secret()] {
        assert!(!shown.contains(&secret), "{shown}");
    }
}

#[tokio::test]
async fn a_dropped_simulator_closes_its_connections_and_its_port() {
    let scene = Scene::new(free()).await;
    scene.simulator.token_faults().next(1, Fault::Hang);
    let addr = scene.simulator.addr();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = b"POST /oauth/token HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    scene.simulator.token_requests_reach(1).await;

    drop(scene.simulator);
    assert!(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(addr).await.is_err());
}
