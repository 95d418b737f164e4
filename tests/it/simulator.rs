//! The simulator against its own promises, over real connections.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use officernd_auth::testing::{Fault, Simulator, SimulatorBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time;
use tower::{Layer as _, ServiceExt as _};

const FORM: &str = "application/x-www-form-urlencoded";
const UNAUTHORIZED: &str =
    r#"{"statusCode":401,"message":"Unauthorized access","error":"Unauthorized"}"#;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn token(&self) -> String {
        self.json()["access_token"].as_str().unwrap().to_owned()
    }

    fn error(&self) -> (u16, String) {
        let error = self.json()["error"].as_str().unwrap().to_owned();
        (self.status.as_u16(), error)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A simulator and a client to go with it.
struct Bench {
    simulator: Simulator,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Bench {
    async fn new(settings: SimulatorBuilder) -> Self {
        let simulator = settings.start().await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { simulator, client }
    }

    async fn send(&self, request: Request<String>) -> Result<Answer, BoxError> {
        let answer = self.client.request(request.map(Full::from)).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        let (status, headers) = (parts.status, parts.headers);
        Ok(Answer {
            status,
            headers,
            body,
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

    /// A good token request, but for this field.
    async fn token_with(&self, name: &str, value: &str) -> Answer {
        let mut fields = self.fields();
        let field = fields.iter_mut().find(|(field, _)| *field == name);
        field.unwrap().1 = value.into();
        self.post(FORM, &form(&fields)).await
    }

    async fn token(&self) -> Answer {
        self.try_token().await.unwrap()
    }

    async fn try_token(&self) -> Result<Answer, BoxError> {
        self.try_post(FORM, &form(&self.fields())).await
    }

    async fn post(&self, content_type: &str, body: &str) -> Answer {
        self.try_post(content_type, body).await.unwrap()
    }

    async fn try_post(&self, content_type: &str, body: &str) -> Result<Answer, BoxError> {
        let request =
            Request::post(self.simulator.token_url()).header("content-type", content_type);
        self.send(request.body(body.to_owned())?).await
    }

    /// Reads the organization's members with this `Authorization`.
    async fn members(&self, authorization: &str) -> Answer {
        let path = format!(
            "/api/v2/organizations/{}/members",
            self.simulator.org_slug()
        );
        self.api("GET", &path, &[authorization]).await
    }

    async fn api(&self, method: &str, path: &str, authorizations: &[&str]) -> Answer {
        let url = format!("{}{path}", self.simulator.origin());
        let mut request = Request::builder().method(method).uri(url);
        for value in authorizations {
            request = request.header("authorization", *value);
        }
        self.send(request.body(String::new()).unwrap())
            .await
            .unwrap()
    }

    /// The status that members answer to this token.
    async fn status_with(&self, token: &str) -> u16 {
        self.members(&format!("Bearer {token}"))
            .await
            .status
            .as_u16()
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

async fn until(true_at_last: impl Fn() -> bool) {
    while !true_at_last() {
        tokio::task::yield_now().await;
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_good_token_request_gets_a_token_that_opens_the_api() {
    let bench = Bench::new(Simulator::builder()).await;
    let answer = bench.token().await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    let token = answer.token();
    assert_eq!(token.len(), 40);
    assert!(token.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let expected = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "officernd.api.read officernd.api.write",
    });
    assert_eq!(answer.json(), expected);

    let members = bench.members(&format!("Bearer {token}")).await;
    assert_eq!(members.status, 200);
    assert_eq!(members.json()["results"][0]["name"], "Main Street");
}

#[tokio::test]
async fn each_token_is_new_and_the_older_ones_still_work() {
    let bench = Bench::new(free()).await;
    let (first, second) = (bench.token().await.token(), bench.token().await.token());
    assert_ne!(first, second);
    assert_eq!(bench.status_with(&first).await, 200);
    assert_eq!(bench.status_with(&second).await, 200);
    assert_eq!(bench.simulator.tokens_issued(), 2);
}

#[tokio::test]
async fn a_json_body_is_refused() {
    let bench = Bench::new(free()).await;
    let body = json!({"client_id": bench.simulator.client_id()}).to_string();
    let answer = bench.post("application/json", &body).await;
    assert_eq!(answer.error(), (400, "invalid_request".into()));
    // Even if it is a form under another name.
    let answer = bench.post("text/plain", &form(&bench.fields())).await;
    assert_eq!(answer.error(), (400, "invalid_request".into()));
}

#[tokio::test]
async fn a_form_may_name_its_charset() {
    let bench = Bench::new(free()).await;
    let content_type = "Application/X-WWW-Form-Urlencoded; charset=utf-8";
    assert_eq!(
        bench
            .post(content_type, &form(&bench.fields()))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn all_four_fields_are_needed_once() {
    let bench = Bench::new(free()).await;
    for (name, _) in bench.fields() {
        let answer = bench.token_with(name, "").await;
        assert_eq!(
            answer.error(),
            (400, "invalid_request".into()),
            "without {name}"
        );
    }
    let twice = form(&bench.fields()) + "&scope=officernd.api.read";
    assert_eq!(
        bench.post(FORM, &twice).await.error(),
        (400, "invalid_request".into())
    );
}

#[tokio::test]
async fn wrong_credentials_are_an_invalid_client_whose_status_can_be_chosen() {
    let bench = Bench::new(free()).await;
    for field in ["client_id", "client_secret"] {
        let answer = bench.token_with(field, "wrong").await;
        assert_eq!(answer.error(), (401, "invalid_client".into()));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
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
}

#[tokio::test]
async fn another_grant_is_unsupported() {
    let bench = Bench::new(free()).await;
    let answer = bench.token_with("grant_type", "password").await;
    assert_eq!(answer.error(), (400, "unsupported_grant_type".into()));
}

#[tokio::test]
async fn one_scope_too_many_fails_the_whole_request() {
    let bench = Bench::new(free()).await;
    for scope in [
        "officernd.api.read flex.space.resources.read",
        "Officernd.api.read",
        " ",
    ] {
        let answer = bench.token_with("scope", scope).await;
        assert_eq!(answer.error(), (400, "invalid_scope".into()), "{scope:?}");
    }
    let fewer = bench.token_with("scope", " officernd.api.read").await;
    assert_eq!(fewer.json()["scope"], "officernd.api.read");
}

#[tokio::test]
async fn other_methods_and_paths_are_not_served() {
    let bench = Bench::new(free()).await;
    let get = bench.api("GET", "/oauth/token", &[]).await;
    assert_eq!(
        (get.status.as_u16(), get.header("allow")),
        (405, Some("POST"))
    );
    for path in [
        "/",
        "/oauth/token/",
        "/api/v3/organizations/simulated-org/members",
    ] {
        assert_eq!(bench.api("GET", path, &[]).await.status, 404, "{path}");
    }
    let trace = bench
        .api("TRACE", "/api/v1/organizations/simulated-org/members", &[])
        .await;
    assert_eq!(trace.status, 405);
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
}

#[tokio::test]
async fn a_minute_later_requests_are_taken_again() {
    let bench = Bench::new(Simulator::builder()).await;
    for _ in 0..5 {
        assert_eq!(bench.token().await.status, 200);
    }
    assert_eq!(bench.token().await.status, 429);
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
    bench.simulator.set_rate_limit(1, seconds(60));
    assert_eq!(bench.token().await.status, 200);
    assert_eq!(bench.token().await.status, 429);
    bench.simulator.set_rate_limit(0, seconds(60));
    assert_eq!(bench.token().await.status, 429);
    bench.simulator.reconfigure(SimulatorBuilder::no_rate_limit);
    assert_eq!(bench.token().await.status, 200);
}

#[tokio::test]
async fn a_token_dies_at_the_end_of_its_life() {
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
async fn a_live_token_can_be_handed_out_again_with_what_remains() {
    let bench = Bench::new(free().reuse_live_token(true)).await;
    let first = bench.token().await;
    pass(seconds(600)).await;
    let again = bench.token().await;
    assert_eq!(again.token(), first.token());
    // Less than a second went by besides, or a few on a machine that crawls.
    let remaining = again.json()["expires_in"].as_u64().unwrap();
    assert!((2900..3000).contains(&remaining), "{remaining}");
    // Other scopes are another token, and so is the next life.
    let other = bench.token_with("scope", "officernd.api.read").await;
    assert_ne!(other.token(), first.token());
    pass(seconds(3000)).await;
    assert_ne!(bench.token().await.token(), first.token());
}

#[tokio::test]
async fn a_new_token_can_revoke_the_older_ones() {
    let bench = Bench::new(free().revoke_older(true)).await;
    let (first, second) = (bench.token().await.token(), bench.token().await.token());
    assert_eq!(bench.status_with(&first).await, 401);
    assert_eq!(bench.status_with(&second).await, 200);
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
}

#[tokio::test]
async fn a_rotated_secret_takes_over_at_once() {
    let bench = Bench::new(free()).await;
    let old = bench.simulator.client_secret();
    let token = bench.token().await.token();
    bench.simulator.set_secret("another");
    assert_eq!(bench.token_with("client_secret", &old).await.status, 401);
    assert_eq!(
        bench.token_with("client_secret", "another").await.status,
        200
    );
    assert_eq!(bench.status_with(&token).await, 200);
}

#[tokio::test]
async fn without_a_good_token_the_api_answers_one_and_the_same_401() {
    let bench = Bench::new(free()).await;
    let token = bench.token().await.token();
    let path = "/api/v1/organizations/simulated-org/members";
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
        let answer = bench.api("GET", path, authorizations).await;
        assert_eq!(answer.status, 401, "{authorizations:?}");
        assert_eq!(answer.body, UNAUTHORIZED);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(bench.simulator.api_requests(), 7);
    assert_eq!(bench.simulator.api_unauthorized(), 7);
    assert_eq!(bench.members(&format!("bearer {token}")).await.status, 200);
}

#[tokio::test]
async fn every_usual_method_and_both_versions_of_the_api_are_served() {
    let bench = Bench::new(free().org_slug("acme")).await;
    let bearer = format!("Bearer {}", bench.token().await.token());
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        for path in [
            "/api/v1/organizations/acme/x",
            "/api/v2/organizations/acme/x/1?$limit=5",
        ] {
            let answer = bench.api(method, path, &[&bearer]).await;
            assert_eq!(answer.status, 200, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn another_organization_is_not_found_with_a_500() {
    let bench = Bench::new(free()).await;
    let bearer = format!("Bearer {}", bench.token().await.token());
    let path = "/api/v2/organizations/other/members";
    let answer = bench.api("GET", path, &[&bearer]).await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["message"], "Organization not found");
    // Whose slug it is, only those hear who have a token.
    assert_eq!(bench.api("GET", path, &[]).await.status, 401);
}

#[tokio::test]
async fn a_path_can_require_a_scope() {
    let settings = free().require_scope_for("members", "officernd.api.write");
    let bench = Bench::new(settings).await;
    let all = format!("Bearer {}", bench.token().await.token());
    let read = bench
        .token_with("scope", "officernd.api.read")
        .await
        .token();
    let read = format!("Bearer {read}");

    let status = async |resource: &str, bearer: &str| {
        let path = format!("/api/v2/organizations/simulated-org/{resource}");
        bench.api("GET", &path, &[bearer]).await.status.as_u16()
    };
    assert_eq!(status("members", &all).await, 200);
    assert_eq!(status("members", &read).await, 401);
    assert_eq!(status("members/17/notes", &read).await, 401);
    assert_eq!(status("membership", &read).await, 200);
    assert_eq!(status("locations", &read).await, 200);
}

#[tokio::test]
async fn a_401_can_carry_a_challenge_that_tells_why() {
    let settings = free()
        .challenge(true)
        .require_scope_for("members", "officernd.api.write");
    let bench = Bench::new(settings).await;
    let read = bench
        .token_with("scope", "officernd.api.read")
        .await
        .token();
    for (authorization, challenge) in [
        (
            format!("Bearer {read}"),
            r#"Bearer error="insufficient_scope""#,
        ),
        ("Bearer unknown".into(), r#"Bearer error="invalid_token""#),
    ] {
        let answer = bench.members(&authorization).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.body, UNAUTHORIZED);
        assert_eq!(answer.header("www-authenticate"), Some(challenge));
    }
    let nothing = bench
        .api("GET", "/api/v2/organizations/simulated-org/members", &[])
        .await;
    assert_eq!(nothing.header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn a_body_over_64_kib_is_too_large() {
    let bench = Bench::new(free()).await;
    let bearer = format!("Bearer {}", bench.token().await.token());
    let url = format!(
        "{}/api/v2/organizations/simulated-org/members",
        bench.simulator.url()
    );
    for (length, status) in [(64 * 1024, 200), (64 * 1024 + 1, 413), (900_000, 413)] {
        let request = Request::post(&url).header("authorization", &bearer);
        let request = request.body("x".repeat(length)).unwrap();
        assert_eq!(
            bench.send(request).await.unwrap().status,
            status,
            "{length}"
        );
    }
    let large = form(&bench.fields()) + "&x=" + &"x".repeat(64 * 1024);
    assert_eq!(bench.post(FORM, &large).await.status, 413);
}

#[tokio::test]
async fn faults_are_met_in_the_order_of_the_script() {
    let bench = Bench::new(free()).await;
    let faults = bench.simulator.token_faults();
    faults.next(2, Fault::Status(503));
    faults.next(1, Fault::Delay(Duration::ZERO));
    faults.next(1, Fault::Garbage);
    faults.next(0, Fault::Hang);
    assert_eq!(faults.pending(), 4);

    assert_eq!(bench.token().await.status, 503);
    assert_eq!(bench.token().await.status, 503);
    assert_eq!(bench.token().await.token().len(), 40);
    let garbage = bench.token().await;
    assert_eq!(
        (garbage.status.as_u16(), garbage.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert_eq!(bench.token().await.token().len(), 40);
    assert_eq!(faults.pending(), 0);
    assert_eq!(bench.simulator.token_requests(), 5);
}

#[tokio::test]
async fn a_lasting_fault_lasts_until_it_is_cleared() {
    let bench = Bench::new(free()).await;
    let token = bench.token().await.token();
    let faults = bench.simulator.api_faults();
    faults.always(Fault::Status(502));
    faults.next(1, Fault::Status(401));
    assert_eq!(bench.status_with(&token).await, 401);
    assert_eq!(bench.status_with(&token).await, 502);
    assert_eq!(bench.status_with(&token).await, 502);
    faults.clear();
    assert_eq!(bench.status_with(&token).await, 200);
    assert_eq!(bench.simulator.api_requests(), 4);
    assert_eq!(bench.simulator.api_unauthorized(), 1);
}

#[tokio::test]
async fn a_script_is_bounded() {
    let simulator = Simulator::start().await.unwrap();
    for _ in 0..2000 {
        simulator.token_faults().next(1, Fault::Hang);
    }
    assert_eq!(simulator.token_faults().pending(), 1024);
}

#[tokio::test]
async fn an_answer_can_be_anything_but_broken_framing() {
    let bench = Bench::new(free()).await;
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    bench.simulator.token_faults().next(
        1,
        Fault::Response {
            status: 418,
            headers: vec![
                header("x-odd", "yes"),
                header("content-length", "3"),
                header("transfer-encoding", "chunked"),
                header("no such name", "x"),
                header("x-bad", "a\nb"),
            ],
            body: "short and stout".into(),
        },
    );
    let answer = bench.token().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-odd")),
        (418, Some("yes"))
    );
    assert_eq!(answer.body, "short and stout");
    assert_eq!(answer.header("x-bad"), None);

    for odd in [0, 99, 101, 1000] {
        bench.simulator.token_faults().next(1, Fault::Status(odd));
        assert_eq!(bench.token().await.status, 500, "{odd}");
    }
    bench
        .simulator
        .token_faults()
        .next(1, Fault::json(204, "{}"));
    assert_eq!(bench.token().await.body, "");
}

#[tokio::test]
async fn a_reset_cuts_the_connection_without_an_answer() {
    let bench = Bench::new(free()).await;
    bench.simulator.token_faults().next(1, Fault::Reset);
    assert!(bench.try_token().await.is_err());
    // The next connection is served.
    assert_eq!(bench.token().await.status, 200);
    let statuses: Vec<_> = bench
        .simulator
        .requests()
        .iter()
        .map(|r| r.status())
        .collect();
    assert_eq!(statuses, [None, Some(200)]);
}

#[tokio::test]
async fn a_reset_reaches_a_bare_socket_as_such() {
    let bench = Bench::new(free()).await;
    bench.simulator.api_faults().always(Fault::Reset);
    let mut stream = TcpStream::connect(bench.simulator.addr()).await.unwrap();
    stream
        .write_all(b"GET /api/ HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_hanging_request_stays_open_until_its_client_leaves() {
    let bench = Bench::new(free()).await;
    bench.simulator.token_faults().next(1, Fault::Hang);
    {
        let hanging = bench.try_token();
        // Not just arrived: the next request must not meet this fault.
        let met = until(|| bench.simulator.token_faults().pending() == 0);
        tokio::select! {
            _ = hanging => panic!("a hanging request was answered"),
            () = met => {}
        }
        // Here the client drops it, and its connection.
    }
    assert_eq!(bench.token().await.status, 200);
    let statuses: Vec<_> = bench
        .simulator
        .requests()
        .iter()
        .map(|r| r.status())
        .collect();
    assert_eq!(statuses, [None, Some(200)]);
}

#[tokio::test]
async fn a_delayed_request_is_served_after_the_delay() {
    let bench = Bench::new(free()).await;
    bench
        .simulator
        .token_faults()
        .next(1, Fault::Delay(seconds(30)));
    let delayed = bench.token();
    let later = async {
        until(|| bench.simulator.token_faults().pending() == 0).await;
        assert_eq!(bench.simulator.tokens_issued(), 0);
        pass(seconds(31)).await;
    };
    let (answer, ()) = tokio::join!(delayed, later);
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_token_ages_while_its_answer_is_on_the_way() {
    let bench = Bench::new(free().token_life(seconds(20))).await;
    bench.simulator.set_latency(seconds(30));
    let later = async {
        until(|| bench.simulator.tokens_issued() == 1).await;
        assert_eq!(bench.simulator.requests()[0].status(), None);
        pass(seconds(31)).await;
    };
    let (answer, ()) = tokio::join!(bench.token(), later);
    assert_eq!(answer.json()["expires_in"], 20);
    assert_eq!(bench.status_with(&answer.token()).await, 401);
}

#[tokio::test]
async fn requests_in_flight_at_once_are_counted() {
    let bench = Bench::new(free()).await;
    bench.token().await;
    assert_eq!(bench.simulator.max_concurrent_token_requests(), 1);
    bench.simulator.token_faults().next(3, Fault::Hang);
    {
        let three = async { tokio::join!(bench.try_token(), bench.try_token(), bench.try_token()) };
        tokio::select! {
            _ = three => panic!("a hanging request was answered"),
            () = bench.simulator.token_requests_reach(4) => {}
        }
    }
    assert_eq!(bench.simulator.max_concurrent_token_requests(), 3);
}

#[tokio::test]
async fn requests_are_recorded_with_all_that_a_test_may_ask_for() {
    let bench = Bench::new(free()).await;
    let token = bench.token().await.token();
    pass(seconds(5)).await;
    let path = "/api/v2/organizations/simulated-org/members?name=Ada";
    bench.api("GET", path, &[&format!("Bearer {token}")]).await;

    let requests = bench.simulator.requests();
    let [first, second] = &requests[..] else {
        panic!("two requests, not {requests:?}");
    };
    assert_eq!((first.method(), first.path()), ("POST", "/oauth/token"));
    assert_eq!(first.status(), Some(200));
    assert_eq!(first.authorization(), None);
    assert_eq!(first.headers()["content-type"], FORM);
    assert_eq!(first.body(), form(&bench.fields()).as_bytes());
    assert_eq!(second.path(), "/api/v2/organizations/simulated-org/members");
    assert_eq!(second.query(), Some("name=Ada"));
    assert_eq!(second.authorization(), Some(&*format!("Bearer {token}")));
    assert!(second.at() - first.at() >= seconds(5));
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let bench = Bench::new(free().credentials("the-id", "the-secret")).await;
    let token = bench.token().await.token();
    bench.members(&format!("Bearer {token}")).await;
    bench.api("GET", &format!("/api/x?key={token}"), &[]).await;
    bench
        .simulator
        .token_faults()
        .always(Fault::json(200, token.clone()));

    let settings = Simulator::builder().credentials("the-id", "the-secret");
    let shown = format!(
        "{:?} {:?} {:?} {:?} {settings:?}",
        bench.simulator,
        bench.simulator.requests(),
        bench.simulator.requests()[1].headers(),
        bench.simulator.token_faults(),
    );
    assert!(!shown.contains("the-secret"), "{shown}");
    assert!(!shown.contains(&token), "{shown}");
}

#[tokio::test]
async fn no_answer_echoes_what_was_sent() {
    let bench = Bench::new(free()).await;
    let marker = "echo-marker";
    for field in ["client_id", "client_secret", "grant_type", "scope"] {
        let answer = bench.token_with(field, marker).await;
        assert!(
            !String::from_utf8_lossy(&answer.body).contains(marker),
            "{field}"
        );
    }
    let answer = bench.members(&format!("Bearer {marker}")).await;
    assert!(!String::from_utf8_lossy(&answer.body).contains(marker));
}

#[tokio::test]
async fn the_record_keeps_the_last_ten_thousand() {
    let simulator = Simulator::start().await.unwrap();
    let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
    let (mut answers, mut requests) = stream.split();
    let drain = async {
        let mut drained = tokio::io::sink();
        tokio::io::copy(&mut answers, &mut drained).await.unwrap();
    };
    let send = async {
        for number in 0..10_001 {
            let close = if number == 10_000 {
                "connection: close\r\n"
            } else {
                ""
            };
            let request = format!("GET /{number} HTTP/1.1\r\nhost: x\r\n{close}\r\n");
            requests.write_all(request.as_bytes()).await.unwrap();
        }
    };
    tokio::join!(drain, send);
    let recorded = simulator.requests();
    assert_eq!(recorded.len(), 10_000);
    assert_eq!(recorded[0].path(), "/1");
    assert_eq!(recorded[9_999].path(), "/10000");
    assert_eq!(recorded[9_999].status(), Some(404));
}

#[tokio::test]
async fn what_is_not_http_gets_a_400_and_harms_nobody() {
    let bench = Bench::new(free()).await;
    let mut stream = TcpStream::connect(bench.simulator.addr()).await.unwrap();
    stream
        .write_all(b"\x16\x03\x01 hello\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(bench.token().await.status, 200);
}

#[tokio::test]
async fn a_dropped_simulator_is_gone_and_its_connections_with_it() {
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

#[tokio::test]
async fn two_simulators_share_nothing() {
    let (one, other) = (Bench::new(free()).await, Bench::new(free()).await);
    let token = one.token().await.token();
    assert_eq!(one.status_with(&token).await, 200);
    assert_eq!(other.status_with(&token).await, 401);
    assert_eq!(other.simulator.token_requests(), 0);
}

#[tokio::test]
async fn an_app_can_be_added_and_deleted_while_the_other_goes_on() {
    let bench = Bench::new(free()).await;
    let officernd = &bench.simulator;
    let old = bench.token().await.token();

    let unknown = bench.token_with("client_id", "second").await;
    assert_eq!(unknown.error(), (401, "invalid_client".into()));
    officernd.add_app("second", officernd.client_secret());
    let new = bench.token_with("client_id", "second").await.token();
    assert_ne!(old, new);

    officernd.delete_app(&officernd.client_id());
    assert_eq!(bench.status_with(&old).await, 401);
    assert_eq!(bench.status_with(&new).await, 200);
    let deleted = bench.token().await;
    assert_eq!(officernd.client_secret(), "");
    assert!(!deleted.status.is_success());
}

#[tokio::test]
async fn its_layer_puts_a_token_on_requests_to_it() {
    let officernd = Simulator::start().await.unwrap();
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = officernd.layer().unwrap().layer(http);
    let (url, slug) = (officernd.url(), officernd.org_slug());
    for _ in 0..2 {
        let request = Request::get(format!("{url}/api/v2/organizations/{slug}/locations"));
        let request = request.body(Full::default()).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(officernd.token_requests(), 1);
}
