//! Errors in the configuration.

use crate::folder::Folder;
use crate::start::run;

/// What a gateway writes that does not start.
fn refusal(settings: &[(&str, &str)]) -> String {
    let output = run(settings, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{settings:?}: {said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
    said
}

const APP: [(&str, &str); 3] = [
    ("OFFICERND_CLIENT_ID", "id"),
    ("OFFICERND_CLIENT_SECRET", "hunter2"),
    ("OFFICERND_SCOPES", "officernd.api.read"),
];

#[test]
fn each_error_names_its_variable() {
    #[rustfmt::skip]
    let cases = [
        ("GATEWAY_LISTEN", "0.0.0.0:0", "0.0.0.0:0 is not 127.0.0.1 or [::1]"),
        ("GATEWAY_LISTEN", "[::]:0", "[::]:0 is not 127.0.0.1 or [::1]"),
        ("GATEWAY_LISTEN", "192.0.2.1:0", "192.0.2.1:0 is not 127.0.0.1 or [::1]"),
        // Accepted by the kernel, refused by the check of `Host`.
        ("GATEWAY_LISTEN", "127.0.0.2:0", "127.0.0.2:0 is not 127.0.0.1 or [::1]"),
        ("GATEWAY_LISTEN", "localhost:0", "localhost:0 is neither an address"),
        ("GATEWAY_LISTEN", "unix:api.sock", "unix:api.sock is not an absolute path after unix:"),
        ("GATEWAY_ADMIN", "8081", "invalid socket address"),
        ("GATEWAY_UPSTREAM", "app.officernd.com", "is not https://HOST"),
        ("GATEWAY_UPSTREAM", "https://*.officernd.com", "is not https://HOST"),
        ("GATEWAY_UPSTREAM", "https://app.officernd.com/base", "is not https://HOST"),
        ("GATEWAY_UPSTREAM", "http://app.officernd.com", "is not https://HOST"),
        ("GATEWAY_UPSTREAM", "", "is set but empty"),
        ("GATEWAY_CONNECTIONS", "0", "is not of the right type: expected a nonzero u16"),
        ("GATEWAY_BODY_LIMIT", "hunter2", "is not of the right type: expected usize"),
        ("GATEWAY_BODY_TIMEOUT", "0s", "must not be zero"),
        ("GATEWAY_HEAD_TIMEOUT", "10", "is not a duration"),
        ("GATEWAY_ANSWER_TIMEOUT", "2days", "must be less than a day"),
        ("GATEWAY_STORE", "memcached://:hunter2@cache", "must start with redis://"),
        ("GATEWAY_DEFAULT_ORGANIZATION", "acme", "[organizations.acme] is missing"),
        ("GATEWAY_ORGANIZATIONS", "acme", "is a table; set it in a file"),
        ("OFFICERND_FETCH_TIMEOUT", "10", "a duration needs a unit"),
        ("OFFICERND_ORG_SLUG", "a/b", "\"a/b\" is not a slug"),
    ];
    for (name, value, problem) in cases {
        let said = refusal(&[&APP[..], &[(name, value)]].concat());
        let problem = format!("{name}: {problem}");
        assert!(said.contains(&problem), "{problem} in {said}");
    }
    for (listen, why) in [
        ("unix:/no/such/folder/api.sock", "cannot listen"),
        ("unix:/dev/null", "the file exists and is not a socket"),
    ] {
        let said = refusal(&[&APP[..], &[("GATEWAY_LISTEN", listen)]].concat());
        assert!(said.contains(why), "{said}");
    }
    let said = refusal(&[&APP[..], &[("OFFICERND_SCOPE", "other")]].concat());
    assert!(
        said.contains("OFFICERND_SCOPE are both set and differ"),
        "{said}"
    );
    let both = [
        ("GATEWAY_LISTEN", "127.0.0.1:18080"),
        ("GATEWAY_ADMIN", "0.0.0.0:18080"),
    ];
    assert!(refusal(&both).contains("GATEWAY_ADMIN: port 18080 is the API's"));
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_known_one() {
    for (name, nearest) in [
        ("GATEWAY_LISTN", "GATEWAY_LISTEN"),
        ("GATEWAY_UPSTREAM_URL", "GATEWAY_UPSTREAM"),
        ("OFFICERND_CLIENT_SECRT", "OFFICERND_CLIENT_SECRET"),
        ("OFFICERND_CLIENTID", "OFFICERND_CLIENT_ID"),
        ("OFFICERND_REFRESH_AHED", "OFFICERND_REFRESH_AHEAD"),
    ] {
        let said = refusal(&[&APP[..], &[(name, "hunter2")]].concat());
        let expected = format!("{name}: is not a setting; did you mean {nearest}?");
        assert!(said.contains(&expected), "{expected} in {said}");
    }
}

#[test]
fn errors_in_the_file_name_the_file_and_the_key() {
    let folder = Folder::new("mistakes");
    #[rustfmt::skip]
    let cases = [
        ("conections = 5", "conections: is not a setting; did you mean connections?"),
        ("[oficernd]", "oficernd: is not a setting; did you mean officernd?"),
        ("[officernd]\nclient_secret = 123", "officernd.client_secret: a string is expected"),
        ("[officernd]\nrefresh_ahed = '5m'", "officernd.refresh_ahed: is not a setting; did you mean refresh_ahead?"),
        ("[organizations.acme]\nclient_idd = 'a'", "organizations.acme.client_idd: is not a setting; did you mean client_id?"),
        ("[organizations.'a b']\nclient_id = 'a'", "organizations: \"a b\" is not a slug"),
        ("[officernd]\nclient_id = 'a'\n[organizations.acme]", "officernd.client_id: belongs in each [organizations.SLUG]"),
        ("upstream = 8080", "upstream: is not of the right type: expected a string"),
        ("[officernd]\nscope = 'a b'\nscopes = ['b', 'c']", "officernd.scope: and scopes are both set and differ"),
        ("[organizations.a]\nscope = 'a'\nscopes = 'b'", "organizations.a.scope: and scopes are both set and differ"),
        // A secret in the wrong place.
        ("officernd = 'hunter2'", "officernd: is not of the right type: expected struct Settings"),
        ("body_limit = 'hunter2'", "body_limit: is not of the right type: expected usize"),
        ("organizations = 'hunter2'", "organizations: is not of the right type: expected a map"),
        ("[organizations]\nacme = 'hunter2'", "organizations.acme: is not of the right type"),
        ("[organizations]\nclient_secret = 'x, expected hunter2'", "organizations.client_secret: is not of the right type"),
        ("a = 1\nb = hunter2", "gateway.toml, line 2: "),
    ];
    for (text, problem) in cases {
        let file = folder.file("gateway.toml", text);
        let said = refusal(&[("GATEWAY_CONFIG", &file)]);
        let place = match problem.contains(", line") {
            true => problem.to_owned(),
            false => format!("gateway.toml: {problem}"),
        };
        assert!(said.contains(&place), "{place} in {said}");
    }
    let (id, secret) = (
        "client_id = 'id'\nclient_id_file = '/id'",
        "client_secret = 'hunter2'",
    );
    let file = folder.file(
        "gateway.toml",
        &format!("[organizations.acme]\n{id}\n{secret}\nscopes = 'a'"),
    );
    let said = refusal(&[("GATEWAY_CONFIG", &file)]);
    assert!(
        said.contains("[organizations.acme]: client_id and client_id_file are both set"),
        "{said}"
    );
    let said = refusal(&[("GATEWAY_CONFIG", "/no/such/file.toml")]);
    assert!(said.contains("/no/such/file.toml"), "{said}");
}

#[test]
fn without_complete_credentials_it_exits_with_2_and_names_the_simulator() {
    let folder = Folder::new("half");
    let file = folder.file("gateway.toml", "[officernd]\nscopes = 'officernd.api.read'");
    for (name, value) in [
        ("RUST_LOG", "info"),
        ("OFFICERND_CLIENT_SECRET", "hunter2"),
        ("OFFICERND_CLIENT_SECRET_FILE", "/nowhere"),
        ("GATEWAY_CONFIG", file.as_str()),
        ("GATEWAY_UPSTREAM", "https://app.officernd.com"),
        ("GATEWAY_STORE", "redis://127.0.0.1:1"),
    ] {
        for arguments in [&[][..], &["check"]] {
            let output = run(&[(name, value)], arguments);
            assert_eq!(output.status.code(), Some(2), "{name}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(
                said.contains("client_id") && said.contains("officernd-simulator"),
                "{said}"
            );
        }
    }
    let no_file = [APP[0], ("OFFICERND_CLIENT_SECRET_FILE", "/nowhere"), APP[2]];
    assert!(refusal(&no_file).contains("/nowhere"));
}

#[tokio::test]
async fn a_secret_of_digits_is_text_and_the_environment_wins_over_the_file() {
    let simulator = officernd_simulator::Simulator::builder().credentials("true", "31415926");
    let simulator = simulator.start().await.unwrap();
    let folder = Folder::new("digits");
    let file = folder.file(
        "gateway.toml",
        "body_limit = 5\nhead_timeout = '5s'\n[officernd]\nscope = 'no.such no.other'\nscopes = ['no.other', 'no.such']\nclient_secret = 'hunter2'\n",
    );
    let more = [
        ("GATEWAY_CONFIG", file.as_str()),
        ("GATEWAY_BODY_LIMIT", "1000"),
        ("OFFICERND_SCOPE", "officernd.api.write, officernd.api.read"),
        ("OFFICERND_JITTER", "0.5"),
        ("OFFICERND_RATE_LIMIT_REQUESTS", "3"),
    ];
    let gateway = crate::child::Gateway::start(&simulator, simulator.url(), &more);
    assert_eq!(gateway.get(crate::child::LOCATIONS).await.0, 200);
    let post = gateway
        .http
        .post(gateway.url(crate::child::LOCATIONS))
        .body("ten bytes.");
    assert_eq!(post.send().await.unwrap().status(), 200);
}
