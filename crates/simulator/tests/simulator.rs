//! The simulator's promises, over real connections.

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

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
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

/// A simulator and a client for it.
struct Bench {
    simulator: Simulator,
    client: Client,
}

impl Bench {
    async fn new(settings: SimulatorBuilder) -> Self {
        let simulator = settings.start().await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        Self { simulator, client }
    }

    async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        let answer = request.send().await?;
        Ok(Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.text().await?,
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

    /// Sends a good token request, but for this field.
    async fn token_with(&self, name: &str, value: &str) -> Answer {
        let mut fields = self.fields();
        let field = fields.iter_mut().find(|(field, _)| *field == name);
        field.unwrap().1 = value.into();
        self.post(FORM, form(&fields)).await.unwrap()
    }

    async fn token(&self) -> Answer {
        self.try_token().await.unwrap()
    }

    async fn try_token(&self) -> reqwest::Result<Answer> {
        self.post(FORM, form(&self.fields())).await
    }

    async fn post(&self, content_type: &str, body: String) -> reqwest::Result<Answer> {
        let request = self.client.post(self.simulator.token_url());
        self.try_send(request.header("content-type", content_type).body(body))
            .await
    }

    async fn api(&self, method: &str, path: &str, authorizations: &[&str]) -> Answer {
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

/// Moves tokio's clock on, and leaves it running: a paused one would jump while
/// the test waits for a socket.
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
    let bench = Bench::new(Simulator::builder()).await;
    let answer = bench.token().await;
    let token = answer.token();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    let expected = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "officernd.api.read officernd.api.write",
    });
    assert_eq!(answer.json(), expected);
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        for path in ["/api/v1/organizations/simulated-org/x", MEMBERS] {
            let bearer = format!("bearer {token}");
            let answer = bench.api(method, path, &[&bearer]).await;
            assert_eq!(answer.status, 200, "{method} {path}");
            assert_eq!(method != "HEAD", answer.body.contains("Main Street"));
        }
    }
}

#[tokio::test]
async fn each_token_is_new_and_only_its_own_simulator_knows_it() {
    let (bench, other) = (Bench::new(free()).await, Bench::new(free()).await);
    let (first, second) = (bench.token().await.token(), bench.token().await.token());
    assert_ne!(first, second);
    assert_eq!(bench.status_with(&first).await, 200);
    assert_eq!(bench.status_with(&second).await, 200);
    assert_eq!(other.status_with(&first).await, 401);
    assert_eq!(bench.simulator.tokens_issued(), 2);
}

#[tokio::test]
async fn the_body_must_be_a_form_with_all_four_fields_once() {
    let bench = Bench::new(free()).await;
    let good = form(&bench.fields());
    let with_charset = "Application/X-WWW-Form-Urlencoded; charset=utf-8";
    assert_eq!(
        bench.post(with_charset, good.clone()).await.unwrap().status,
        200
    );
    let twice = good.clone() + "&scope=officernd.api.read";
    for (content_type, body) in [
        ("application/json", "{}".into()),
        ("text/plain", good),
        (FORM, twice),
    ] {
        let answer = bench.post(content_type, body).await.unwrap();
        assert_eq!(
            answer.error(),
            (400, "invalid_request".into()),
            "{content_type}"
        );
    }
    for (name, _) in bench.fields() {
        let answer = bench.token_with(name, "").await;
        assert_eq!(
            answer.error(),
            (400, "invalid_request".into()),
            "without {name}"
        );
    }
}

#[tokio::test]
async fn wrong_credentials_grants_and_scopes_are_refused_with_their_codes() {
    let bench = Bench::new(free()).await;
    for (field, value, status, error) in [
        ("client_id", "wrong", 401, "invalid_client"),
        ("client_secret", "wrong", 401, "invalid_client"),
        ("grant_type", "password", 400, "unsupported_grant_type"),
        (
            "scope",
            "officernd.api.read flex.space.resources.read",
            400,
            "invalid_scope",
        ),
        ("scope", "Officernd.api.read", 400, "invalid_scope"),
        ("scope", " ", 400, "invalid_scope"),
    ] {
        let answer = bench.token_with(field, value).await;
        assert_eq!(answer.error(), (status, error.into()), "{field} {value:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let fewer = bench.token_with("scope", " officernd.api.read").await;
    assert_eq!(fewer.json()["scope"], "officernd.api.read");
    bench
        .simulator
        .reconfigure(|settings| settings.invalid_client_status(400));
    let answer = bench.token_with("client_secret", "wrong").await;
    assert_eq!(answer.error(), (400, "invalid_client".into()));
}

#[tokio::test]
async fn credentials_with_any_characters_survive_the_form() {
    let bench = Bench::new(free().credentials("a&b=c d", "ü%+/\"=")).await;
    assert_eq!(bench.token().await.status, 200);
    let [(_, id), (_, secret), ..] = bench.simulator.env();
    assert_eq!((&*id, &*secret), ("a&b=c d", "ü%+/\"="));
}

#[tokio::test]
async fn other_methods_and_paths_are_not_served() {
    let bench = Bench::new(free()).await;
    let get = bench.api("GET", "/oauth/token", &[]).await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    for path in [
        "/",
        "/oauth/token/",
        "/api/v3/organizations/simulated-org/members",
    ] {
        assert_eq!(bench.api("GET", path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(bench.api("TRACE", MEMBERS, &[]).await.status, 405);
}

#[tokio::test]
async fn the_sixth_request_of_a_minute_is_refused_failed_ones_counted() {
    let bench = Bench::new(Simulator::builder()).await;
    bench.simulator.token_faults().next(1, Fault::Status(503));
    assert_eq!(bench.token().await.status, 503);
    assert_eq!(bench.api("GET", "/oauth/token", &[]).await.status, 405);
    assert_eq!(bench.token_with("client_secret", "wrong").await.status, 401);
    assert_eq!(bench.token_with("scope", "nothing").await.status, 400);
    assert_eq!(bench.token().await.status, 200);

    let refused = bench.token().await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.body, "Too many requests, please try again later.");
    assert_eq!(
        refused.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(refused.header("retry-after"), None);
    assert_eq!(bench.simulator.token_requests(), 6);
    assert_eq!(bench.simulator.tokens_issued(), 1);

    pass(seconds(60)).await;
    assert_eq!(bench.token().await.status, 200);
    assert_eq!(bench.simulator.max_token_requests_in(seconds(60)), 6);
    assert_eq!(bench.simulator.max_token_requests_in(seconds(3600)), 7);
}

#[tokio::test]
async fn retry_after_tells_a_wait_that_is_long_enough() {
    let limited = Simulator::builder()
        .rate_limit(2, seconds(30))
        .retry_after(true);
    let bench = Bench::new(limited).await;
    for _ in 0..2 {
        assert_eq!(bench.token().await.status, 200);
        pass(seconds(10)).await;
    }
    let refused = bench.token().await;
    // The refused request counts too: the second one must leave the window.
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((10..=20).contains(&wait), "{wait}");
    pass(seconds(wait)).await;
    assert_eq!(bench.token().await.status, 200);
}

#[tokio::test]
async fn the_rate_limit_can_change_under_way() {
    let bench = Bench::new(free()).await;
    for _ in 0..10 {
        assert_eq!(bench.token().await.status, 200);
    }
    for (limit, status) in [(1, 200), (1, 429), (0, 429)] {
        bench
            .simulator
            .reconfigure(|settings| settings.rate_limit(limit, seconds(60)));
        assert_eq!(bench.token().await.status, status);
    }
    bench.simulator.reconfigure(SimulatorBuilder::no_rate_limit);
    assert_eq!(bench.token().await.status, 200);
}

#[tokio::test]
async fn a_token_expires_at_the_end_of_its_life() {
    let bench = Bench::new(Simulator::builder()).await;
    let token = bench.token().await.token();
    pass(seconds(3590)).await;
    assert_eq!(bench.status_with(&token).await, 200);
    pass(seconds(10)).await;
    assert_eq!(bench.status_with(&token).await, 401);
}

#[tokio::test]
async fn expires_in_is_whole_seconds_and_never_zero() {
    let bench = Bench::new(free().token_life(Duration::from_millis(2500))).await;
    assert_eq!(bench.token().await.json()["expires_in"], 2);
    bench.simulator.set_token_life(Duration::from_millis(300));
    let answer = bench.token().await;
    assert_eq!(answer.json()["expires_in"], 1);
    pass(Duration::from_millis(300)).await;
    assert_eq!(bench.status_with(&answer.token()).await, 401);
}

#[tokio::test]
async fn a_live_token_can_be_issued_again_with_the_rest_of_its_life() {
    let bench = Bench::new(free().reuse_live_token(true)).await;
    let first = bench.token().await;
    pass(seconds(600)).await;
    let again = bench.token().await;
    assert_eq!(again.token(), first.token());
    // Less than a second passes besides, or a few on a slow machine.
    let remaining = again.json()["expires_in"].as_u64().unwrap();
    assert!((2900..3000).contains(&remaining), "{remaining}");
    // Other scopes get another token, and so does a request after its expiry.
    let other = bench.token_with("scope", "officernd.api.read").await;
    assert_ne!(other.token(), first.token());
    pass(seconds(3000)).await;
    assert_ne!(bench.token().await.token(), first.token());
}

#[tokio::test]
async fn revoked_tokens_are_refused() {
    let bench = Bench::new(free()).await;
    let tokens = [bench.token().await.token(), bench.token().await.token()];
    bench.simulator.revoke(&tokens[0]);
    assert_eq!(bench.status_with(&tokens[0]).await, 401);
    assert_eq!(bench.status_with(&tokens[1]).await, 200);
    bench.simulator.revoke_all();
    assert_eq!(bench.status_with(&tokens[1]).await, 401);
    // A new token can do it too.
    bench
        .simulator
        .reconfigure(|settings| settings.revoke_older(true));
    let (first, second) = (bench.token().await.token(), bench.token().await.token());
    assert_eq!(bench.status_with(&first).await, 401);
    assert_eq!(bench.status_with(&second).await, 200);
}

#[tokio::test]
async fn a_new_secret_replaces_the_old_one_and_tokens_stay() {
    let bench = Bench::new(free()).await;
    let old = bench.simulator.client_secret();
    let token = bench.token().await.token();
    bench.simulator.set_secret("another");
    assert_eq!(bench.token_with("client_secret", &old).await.status, 401);
    assert_eq!(bench.token().await.status, 200);
    assert_eq!(bench.status_with(&token).await, 200);
}

#[tokio::test]
async fn an_app_can_be_added_and_deleted_without_effect_on_the_other() {
    let bench = Bench::new(free()).await;
    let officernd = &bench.simulator;
    let old = bench.token().await.token();
    assert_eq!(bench.token_with("client_id", "second").await.status, 401);
    officernd.add_app("second", officernd.client_secret());
    let new = bench.token_with("client_id", "second").await.token();

    officernd.delete_app(&officernd.client_id());
    assert_eq!(bench.status_with(&old).await, 401);
    assert_eq!(bench.status_with(&new).await, 200);
    assert_eq!(officernd.client_secret(), "");
    assert_ne!(bench.token().await.status, 200);
}

#[tokio::test]
async fn without_a_good_token_the_api_always_returns_the_same_401() {
    let bench = Bench::new(free()).await;
    let token = bench.token().await.token();
    let good = format!("Bearer {token}");
    let cases: [&[&str]; 7] = [
        &[],
        &[""],
        &["Bearer undefined"],
        &["Bearer"],
        &[&token],
        &[&format!("Basic {token}")],
        &[&good, &good],
    ];
    for authorizations in cases {
        let answer = bench.api("GET", MEMBERS, authorizations).await;
        assert_eq!(answer.status, 401, "{authorizations:?}");
        assert_eq!(answer.body, UNAUTHORIZED);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(bench.simulator.api_requests(), 7);
    assert_eq!(bench.simulator.api_unauthorized(), 7);
}

#[tokio::test]
async fn another_organization_is_not_found_with_a_500() {
    let bench = Bench::new(free()).await;
    let bearer = format!("Bearer {}", bench.token().await.token());
    let path = "/api/v2/organizations/other/members";
    let answer = bench.api("GET", path, &[&bearer]).await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["message"], "Organization not found");
    // Without a token the slug makes no difference.
    assert_eq!(bench.api("GET", path, &[]).await.status, 401);
}

#[tokio::test]
async fn a_path_can_require_a_scope_and_a_challenge_can_name_the_reason() {
    let settings = free().require_scope_for("members", "officernd.api.write");
    let bench = Bench::new(settings.challenge(true)).await;
    let all = format!("Bearer {}", bench.token().await.token());
    let read = bench.token_with("scope", "officernd.api.read").await;
    let read = format!("Bearer {}", read.token());
    let missing = Some(r#"Bearer error="insufficient_scope""#);
    let invalid = Some(r#"Bearer error="invalid_token""#);
    for (resource, authorization, status, challenge) in [
        ("members", &[&*all][..], 200, None),
        ("members", &[&*read], 401, missing),
        ("members/17/notes", &[&*read], 401, missing),
        ("membership", &[&*read], 200, None),
        ("members", &["Bearer unknown"], 401, invalid),
        ("members", &[], 401, Some("Bearer")),
    ] {
        let path = format!("/api/v2/organizations/simulated-org/{resource}");
        let answer = bench.api("GET", &path, authorization).await;
        assert_eq!(answer.status, status, "{resource} {authorization:?}");
        assert_eq!(answer.header("www-authenticate"), challenge);
    }
}

#[tokio::test]
async fn faults_are_met_in_the_order_of_the_script() {
    let bench = Bench::new(free()).await;
    let faults = bench.simulator.token_faults();
    faults.always(Fault::Status(502));
    faults.next(2, Fault::Status(503));
    faults.next(1, Fault::Delay(Duration::ZERO));
    faults.next(1, Fault::Garbage);
    faults.next(0, Fault::Hang);
    assert_eq!(faults.pending(), 4);
    for status in [503, 503, 200] {
        assert_eq!(bench.token().await.status, status);
    }
    let garbage = bench.token().await;
    assert_eq!(garbage.status, 200);
    assert_eq!(
        garbage.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(faults.pending(), 0);
    assert_eq!(bench.token().await.status, 502);
    assert_eq!(bench.token().await.status, 502);
    faults.clear();
    assert_eq!(bench.token().await.status, 200);
    assert_eq!(bench.simulator.token_requests(), 7);
}

#[tokio::test]
async fn a_response_can_be_anything_but_broken_framing() {
    let bench = Bench::new(free()).await;
    let faults = bench.simulator.token_faults();
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
    let answer = bench.token().await;
    assert_eq!((answer.status, answer.header("x-odd")), (418, Some("yes")));
    assert_eq!(answer.body, "short and stout");
    assert_eq!(answer.header("x-bad"), None);
    for odd in [0, 99, 101, 1000] {
        faults.next(1, Fault::Status(odd));
        assert_eq!(bench.token().await.status, 500, "{odd}");
    }
    faults.next(1, Fault::json(204, "{}"));
    assert_eq!(bench.token().await.body, "");
}

#[tokio::test]
async fn a_reset_closes_the_connection_without_a_response() {
    let bench = Bench::new(free()).await;
    bench.simulator.api_faults().next(1, Fault::Reset);
    let mut stream = TcpStream::connect(bench.simulator.addr()).await.unwrap();
    let request = b"GET /api/ HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The next connection is served.
    assert_eq!(bench.token().await.status, 200);
    assert_eq!(bench.statuses(), [None, Some(200)]);
}

#[tokio::test]
async fn a_hanging_request_stays_open_until_its_client_leaves() {
    let bench = Bench::new(free()).await;
    bench.simulator.token_faults().next(1, Fault::Hang);
    // A request that has only arrived would leave the fault to the next one.
    let met = until(|| bench.simulator.token_faults().pending() == 0);
    tokio::select! {
        _ = bench.try_token() => panic!("a hanging request got a response"),
        () = met => {}
    }
    assert_eq!(bench.token().await.status, 200);
    assert_eq!(bench.statuses(), [None, Some(200)]);
}

#[tokio::test]
async fn a_delayed_request_is_served_after_the_delay() {
    let bench = Bench::new(free()).await;
    let faults = bench.simulator.token_faults();
    faults.next(1, Fault::Delay(seconds(30)));
    let later = async {
        until(|| faults.pending() == 0).await;
        assert_eq!(bench.simulator.tokens_issued(), 0);
        pass(seconds(31)).await;
    };
    let (answer, ()) = tokio::join!(bench.token(), later);
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_token_ages_while_its_response_is_on_the_way() {
    let bench = Bench::new(free().token_life(seconds(20))).await;
    bench.simulator.set_latency(seconds(30));
    let later = async {
        until(|| bench.simulator.tokens_issued() == 1).await;
        assert_eq!(bench.statuses(), [None]);
        pass(seconds(31)).await;
    };
    let (answer, ()) = tokio::join!(bench.token(), later);
    assert_eq!(answer.json()["expires_in"], 20);
    assert_eq!(bench.status_with(&answer.token()).await, 401);
}

#[tokio::test]
async fn requests_are_recorded_and_debug_shows_no_token() {
    let bench = Bench::new(free()).await;
    let token = bench.token().await.token();
    pass(seconds(5)).await;
    let (path, bearer) = (format!("{MEMBERS}?key={token}"), format!("Bearer {token}"));
    bench.api("GET", &path, &[&bearer]).await;

    let [first, second] = &bench.simulator.requests()[..] else {
        panic!("{:?}", bench.simulator);
    };
    assert_eq!(first.method, "POST");
    assert_eq!(first.uri, "/oauth/token");
    assert_eq!(first.authorization(), None);
    assert_eq!(first.headers["content-type"], FORM);
    assert_eq!(first.body, form(&bench.fields()));
    assert_eq!(second.uri, *path);
    assert_eq!(second.authorization(), Some(&*bearer));
    assert!(second.at - first.at >= seconds(5));
    let shown = format!("{first:?} {second:?}");
    assert!(shown.contains(MEMBERS), "{shown}");
    for secret in [token, bench.simulator.client_secret()] {
        assert!(!shown.contains(&secret), "{shown}");
    }
}

#[tokio::test]
async fn a_dropped_simulator_closes_its_connections_and_its_port() {
    let bench = Bench::new(free()).await;
    bench.simulator.token_faults().next(1, Fault::Hang);
    let addr = bench.simulator.addr();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = b"POST /oauth/token HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    bench.simulator.token_requests_reach(1).await;

    drop(bench.simulator);
    assert!(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(addr).await.is_err());
}
