//! Runs a simulator until Ctrl-C, for curl, Postman or a program in another language, and prints how to reach it.
//! `--once` ends after the start.

#![expect(clippy::print_stdout, reason = "an example prints what it did")]

use officernd_auth::testing::Simulator;

#[tokio::main]
pub(crate) async fn main() -> std::io::Result<()> {
    let officernd = Simulator::builder()
        .org_slug("acme")
        .grant_scopes(["flex.space.locations.read"])
        .start()
        .await?;
    let (id, secret) = (officernd.client_id(), officernd.client_secret());
    let (url, token_url) = (officernd.url(), officernd.token_url());

    println!("# The settings of a program that uses officernd-auth:");
    println!("export OFFICERND_CLIENT_ID={id} OFFICERND_CLIENT_SECRET={secret}");
    println!("export OFFICERND_SCOPE=flex.space.locations.read OFFICERND_ORG_SLUG=acme");
    println!("export OFFICERND_TOKEN_URL={token_url} OFFICERND_API_URL={url}");
    println!(
        "\n# A token, and a request with it. In Postman: authorization type OAuth 2.0, grant type"
    );
    println!("# Client Credentials, this token URL, and \"send client credentials in body\".");
    println!(
        "curl {token_url} -d grant_type=client_credentials -d scope=flex.space.locations.read \\"
    );
    println!("  -d client_id={id} -d client_secret={secret}");
    println!("curl {url}/api/v2/organizations/acme/locations -H \"Authorization: Bearer $TOKEN\"");

    if std::env::args().any(|argument| argument == "--once") {
        assert_eq!(officernd.token_requests(), 0);
        println!("\n# The simulator listens on {}.", officernd.addr());
        return Ok(());
    }
    tokio::signal::ctrl_c().await
}
