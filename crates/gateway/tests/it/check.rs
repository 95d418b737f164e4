//! `officernd-gateway check`.

use officernd_simulator::Fault;

use crate::child::output;
use crate::folder::Folder;
use crate::network::{APP, IDENTITY, Network, Proxy};

/// Runs it on this network, with some variables changed; an empty value removes one.
async fn check(network: &Network, changed: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = network.command(&network.token_url(), &network.url);
    command.arg("check");
    for (name, value) in changed {
        match *value {
            "" => command.env_remove(name),
            value => command.env(name, value),
        };
    }
    let (code, said) = output(command).await;
    let secret = network.officernd.client_secret();
    assert!(!said.contains(&secret), "{said}");
    (code, said)
}

#[tokio::test]
async fn a_valid_configuration_passes_every_step_with_one_token_request() {
    let network = Network::start("sound").await;
    let proxy = Proxy::start(&network, "200 OK").await;
    let changed = [
        ("OFFICERND_TOKEN_URL", IDENTITY),
        ("GATEWAY_UPSTREAM", APP),
        ("HTTPS_PROXY", proxy.url.as_str()),
    ];
    let (code, said) = check(&network, &changed).await;
    assert_eq!(code, Some(0), "{said}");
    let through = format!("answers through the proxy {}/", proxy.url);
    for line in [
        "configuration: valid; API at https://app.invalid",
        &format!("connection: https://identity.invalid {through}"),
        &format!("connection: https://app.invalid {through}"),
        "token of acme: valid for 3600 s",
        "scope of acme: officernd.api.read",
        "locations answers 200 OK",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert_eq!(network.officernd.token_requests(), 1);
    assert!(!said.contains("region"), "{said}");
}

#[tokio::test]
async fn a_regional_host_is_printed_with_the_setting_for_it() {
    let network = Network::start("region").await;
    let region = |url: &str| {
        Fault::json(
            200,
            format!(r#"{{"slug":"acme","regionInfo":{{"regionUrl":"{url}"}}}}"#),
        )
    };
    let faults = network.officernd.api_faults();
    let pass = || Fault::Delay(std::time::Duration::ZERO);
    let eu = "https://eu.officernd.com/api?key=hunter2";
    let own = network.url.as_str();
    #[rustfmt::skip]
    let cases = [
        (pass(), region(eu), 0, "set GATEWAY_UPSTREAM=https://eu.officernd.com\n"),
        // It may be why the first request failed.
        (Fault::Status(404), region(eu), 6, "OFFICERND_ALLOW_ORIGINS=https://eu.officernd.com\n"),
        // An app may have no scope of API v1, and the host may be the configured one.
        (pass(), Fault::Status(401), 0, ""),
        (pass(), region(own), 0, ""),
        (pass(), Fault::json(200, " ".repeat(65 * 1024)), 0, ""),
    ];
    for (locations, answer, code, line) in cases {
        faults.next(1, locations);
        faults.next(1, answer);
        let (exit, said) = check(&network, &[]).await;
        assert_eq!(exit, Some(code), "{said}");
        assert!(said.contains(line) && !said.contains("hunter2"), "{said}");
        assert_eq!(said.contains("region: "), !line.is_empty(), "{said}");
    }
    assert_eq!(network.officernd.token_requests(), 5, "one for each run");
    let long = format!("https://{}.example", ["a"; 60].concat().repeat(5));
    #[rustfmt::skip]
    let none = [
        "http://eu.officernd.com", "eu.officernd.com", "https://me:hunter2@eu.officernd.com", "https://a;b.example",
        "https://\u{430}pp.officernd.com", "https://*.officernd.com", "https://", "javascript:alert(1)", "", &long,
    ];
    for url in none {
        faults.next(1, pass());
        faults.next(1, region(url));
        let (exit, said) = check(&network, &[]).await;
        assert_eq!(exit, Some(0), "{said}");
        assert!(!said.contains("region: "), "{url}: {said}");
    }
}

/// Changed variables, faults of the token endpoint and the API, exit code and words.
type Step<'a> = (
    &'a [(&'a str, &'a str)],
    Option<Fault>,
    Option<Fault>,
    i32,
    &'a str,
);

#[tokio::test]
async fn each_step_that_fails_has_its_exit_code_and_words() {
    let network = Network::start("steps").await;
    let narrowed =
        r#"{"access_token":"abc","token_type":"Bearer","expires_in":60,"scope":"other"}"#;
    #[rustfmt::skip]
    let steps: [Step<'_>; 9] = [
        (&[("OFFICERND_JITTER", "9.0")], None, None, 2, "jitter is not between"),
        (&[("OFFICERND_CLIENT_SECRET", "")], None, None, 2, "client_secret"),
        (&[("OFFICERND_CLIENT_SECRET", "wrong")], None, None, 4, "client id and secret"),
        (&[("OFFICERND_SCOPES", "no.such")], None, None, 5, "scope"),
        (&[("OFFICERND_ORG_SLUG", "other")], None, None, 6, "no such organization"),
        (&[], Some(Fault::Garbage), None, 4, "token"),
        (&[], Some(Fault::json(200, narrowed)), None, 5, "officernd.api.read was not granted"),
        (&[], None, Some(Fault::Status(403)), 5, "scope that reads locations"),
        (&[], None, Some(Fault::Status(429)), 6, "rate limit is reached"),
    ];
    for (changed, token, api, code, words) in steps {
        network.officernd.token_faults().clear();
        network.officernd.api_faults().clear();
        if let Some(fault) = token {
            network.officernd.token_faults().always(fault);
        }
        if let Some(fault) = api {
            network.officernd.api_faults().always(fault);
        }
        let (exit, said) = check(&network, changed).await;
        assert_eq!(exit, Some(code), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn every_organization_is_tried() {
    let network = Network::start("two").await;
    let folder = Folder::new("check-two");
    let (id, secret) = (
        network.officernd.client_id(),
        network.officernd.client_secret(),
    );
    let app = |slug: &str, secret: &str| {
        format!("[organizations.{slug}]\nclient_id = \"{id}\"\nclient_secret = \"{secret}\"\n")
    };
    let text = app("acme", &secret) + &app("other", "wrong");
    let file = folder.file("gateway.toml", &text);
    let changed = [
        ("GATEWAY_CONFIG", file.as_str()),
        ("OFFICERND_CLIENT_ID", ""),
        ("OFFICERND_CLIENT_SECRET", ""),
        ("OFFICERND_ORG_SLUG", ""),
    ];
    let (code, said) = check(&network, &changed).await;
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("organization acme: /api/v2/") && said.contains("token of other:"),
        "{said}"
    );
}
