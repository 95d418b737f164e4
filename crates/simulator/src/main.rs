//! `officernd-simulator`: runs a simulator until it is killed, for curl, Postman or a program in any language.

use std::io::{self, Write as _};
use std::process::ExitCode;

use officernd_simulator::Simulator;
use tokio::runtime;

const USAGE: &str = "\
Simulates OfficeRnD's token endpoint and API on a free port of 127.0.0.1.

Usage: officernd-simulator [OPTIONS]

Options:
  -h, --help     Print this help
  -V, --version  Print the version

It prints the environment of a program that uses it, and curl commands to try.
Ctrl-C ends it.
";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let done =
        match (arguments.next(), arguments.next()) {
            (None, _) => run(),
            (Some(argument), None) if argument == "--help" || argument == "-h" => print(USAGE),
            (Some(argument), None) if argument == "--version" || argument == "-V" => print(
                concat!("officernd-simulator ", env!("CARGO_PKG_VERSION"), "\n"),
            ),
            (Some(one), None) => return refuse(&one.to_string_lossy()),
            (Some(_), Some(second)) => return refuse(&second.to_string_lossy()),
        };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error.to_string()),
    }
}

fn run() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let officernd = Simulator::builder()
            .org_slug("acme")
            .grant_scopes(["flex.space.locations.read"])
            .start()
            .await?;
        print(&instructions(&officernd))?;
        std::future::pending().await
    })
}

fn instructions(officernd: &Simulator) -> String {
    let (url, slug) = (officernd.url(), officernd.org_slug());
    let mut text = String::from("# The environment of a program that uses officernd-auth:\n");
    let allowed = ("OFFICERND_ALLOW_ORIGINS", url.to_owned());
    for (name, value) in officernd.env().into_iter().chain([allowed]) {
        text.push_str(&format!("export {name}='{value}'\n"));
    }
    let (id, secret) = (officernd.client_id(), officernd.client_secret());
    let (token_url, scope) = (officernd.token_url(), officernd.scope());
    text.push_str(&format!(
        "\
export OFFICERND_ORG_SLUG='{slug}' OFFICERND_API_URL='{url}'
# And of officernd-gateway:
export GATEWAY_UPSTREAM='{url}'

# A token, and a request with it. In Postman: authorization type \"OAuth 2.0\", grant type
# \"Client Credentials\", this token URL, \"Send client credentials in body\".
curl {token_url} -d grant_type=client_credentials \\
  -d client_id={id} -d client_secret={secret} -d 'scope={scope}'
curl {url}/api/v2/organizations/{slug}/locations -H \"Authorization: Bearer $TOKEN\"
"
    ));
    text
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn refuse(argument: &str) -> ExitCode {
    fail(2, &format!("unexpected argument {argument:?}\n\n{USAGE}"))
}

fn fail(code: u8, why: &str) -> ExitCode {
    // If standard error is closed, the exit code is all that remains.
    let _ = writeln!(io::stderr(), "officernd-simulator: {why}");
    ExitCode::from(code)
}
