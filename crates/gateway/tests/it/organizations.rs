//! Several organizations behind one gateway.

use officernd_simulator::{Fault, Simulator};
use serde_json::Value;

use crate::child::{Gateway, gateway, until};
use crate::folder::Folder;

const CONFIG: &str = r#"
    [officernd]
    scopes = "shared.read"
    [organizations.acme-london]
    scope = "officernd.api.read"
    client_id_file = "ID_FILE"
    client_secret_file = "SECRET_FILE"
    token_url = "LONDON"
    [organizations.acme-paris]
    client_id = "paris"
    client_secret = "secret of paris"
    token_url = "PARIS"
"#;

fn path(slug: &str) -> String {
    format!("/api/v2/organizations/{slug}/locations")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_organization_has_a_token_of_its_own() {
    let mut simulators = Vec::new();
    for (slug, id, secret, scope) in [
        (
            "acme-london",
            "london",
            "secret of london",
            "officernd.api.read",
        ),
        ("acme-paris", "paris", "secret of paris", "shared.read"),
    ] {
        let simulator = Simulator::builder().org_slug(slug).credentials(id, secret);
        let simulator = simulator.grant_scopes([scope]);
        simulators.push(simulator.start().await.unwrap());
    }
    let [london, paris] = simulators.try_into().unwrap();
    let folder = Folder::new("organizations");
    let (config, secret) = (folder.join("gateway.toml"), folder.join("secret"));
    std::fs::write(&secret, "secret of london\n").unwrap();
    let text = CONFIG
        .replace("ID_FILE", &folder.file("id", "london\n"))
        .replace("SECRET_FILE", secret.to_str().unwrap())
        .replace("LONDON", &london.token_url())
        .replace("PARIS", &paris.token_url());
    std::fs::write(&config, text).unwrap();

    // Paris's tokens come from elsewhere; the API is London's.
    let mut command = gateway();
    command.arg("--config").arg(&config);
    command.env("GATEWAY_UPSTREAM", london.url());
    let gateway = Gateway::spawn(command);
    // Both are fetched before the first request.
    until(|| london.token_requests() == 1 && paris.token_requests() == 1).await;
    assert_eq!(gateway.get(&path("acme-london")).await.0, 200);
    // London's API does not know Paris's token: another token went out.
    assert_eq!(gateway.get(&path("acme-paris")).await.0, 401);
    assert_eq!(gateway.get(&path("acme-berlin")).await.0, 404);
    assert_eq!(
        gateway
            .get("/api/v2/organizations/acme-london/../x")
            .await
            .0,
        404
    );

    let (status, ready) = gateway.get("/readyz").await;
    assert_eq!(status, 200);
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let slugs: Vec<&Value> = (0..2)
        .map(|n| &ready["organizations"][n]["organization"])
        .collect();
    assert_eq!(slugs, ["acme-london", "acme-paris"]);
    let (_, metrics) = gateway.get("/metrics").await;
    for slug in ["acme-london", "acme-paris"] {
        let series = format!("officernd_gateway_token_left_seconds{{organization=\"{slug}\"}} 3");
        assert!(metrics.contains(&series), "{metrics}");
    }

    let (_, page) = gateway.get("/").await;
    for slug in ["acme-london", "acme-paris"] {
        assert!(
            page.contains(&format!("<h2>Token of {slug}</h2>")),
            "{page}"
        );
    }

    // A rotated secret is read from its file, without a restart.
    london.set_secret("rotated");
    std::fs::write(&secret, "rotated\n").unwrap();
    london.revoke_all();
    assert_eq!(gateway.get(&path("acme-london")).await.0, 200);
    // One organization that fails leaves the other alone, and the gateway ready.
    let refusal = Fault::json(400, r#"{"error":"invalid_client"}"#);
    paris.token_faults().always(refusal);
    assert_eq!(gateway.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn equal_rate_limits_share_one_window_and_different_ones_do_not() {
    let simulator = Simulator::start().await.unwrap();
    let mut config = format!(
        "[officernd]\nscopes = '{}'\ntoken_url = '{}'\nacquire_timeout = '2s'\nrate_limit_per = '1h'\n",
        simulator.scope(),
        simulator.token_url()
    );
    for (slug, requests) in [("a", 1), ("b", 1), ("c", 2)] {
        simulator.add_app(slug, "secret");
        config += &format!(
            "[organizations.{slug}]\nclient_id = '{slug}'\nclient_secret = 'secret'\nrate_limit_requests = {requests}\n"
        );
    }
    let folder = Folder::new("windows");
    let more = [("GATEWAY_CONFIG", folder.file("gateway.toml", &config))];
    let mut command = gateway();
    command.envs(more).env("GATEWAY_UPSTREAM", simulator.url());
    let gateway = Gateway::spawn(command);
    let mut without_token = Vec::new();
    for slug in ["a", "b", "c"] {
        if gateway.get(&path(slug)).await.0 == 503 {
            without_token.push(slug);
        }
    }
    assert!(
        matches!(without_token.as_slice(), ["a" | "b"]),
        "{without_token:?}"
    );
    assert_eq!(simulator.token_requests(), 2);
}
