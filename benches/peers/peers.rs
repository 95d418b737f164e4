//! How much time does a hit add, relative to another crate that refreshes its token too?
//!
//! ```text
//! cargo bench --locked --manifest-path benches/peers/Cargo.toml --bench peers
//! ```

#[allow(dead_code, reason = "no bench needs all of it")]
#[path = "../common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use common::hit::{self, Implementation};
use common::rounds::{Goals, OVER_TOWER_HTTP, compare};
use http::Request;
use http::header::AUTHORIZATION;
use middle::{Authorizer, BasicClientCredentialAuthorizer};
use serde_json::json;
use tower::{BoxError, ServiceExt as _};

const OVER_MIDDLE: Goals = ("middle", [Some(0.85), Some(0.6), Some(0.9), Some(0.6)]);

fn main() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut implementations = hit::all()?;
    let authorizer = runtime.block_on(authorizer())?;
    // The crate has no layer; this one does as little as possible.
    implementations.push(Implementation::new("middle", move |inner| {
        let authorizer = authorizer.clone();
        inner.map_request(move |mut request: Request<()>| {
            let Ok(value) = authorizer.authorization_header() else {
                panic!("the token has expired");
            };
            let headers = request.headers_mut();
            headers.insert(AUTHORIZATION, (*value).clone());
            request
        })
    })?);
    compare(&implementations, &[OVER_TOWER_HTTP, OVER_MIDDLE]);
    Ok(())
}

/// Returns middle's authorizer, with the token of the other implementations.
async fn authorizer() -> Result<BasicClientCredentialAuthorizer, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = url::Url::parse(&format!("http://{}/token", listener.local_addr()?))?;
    let body =
        json!({ "access_token": hit::token(), "token_type": "bearer", "expires_in": 3_600 });
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    let response = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // Requests of a few hundred bytes arrive in one piece.
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(response.as_bytes());
        }
    });
    let builder = BasicClientCredentialAuthorizer::basic_builder("client", "secret", url);
    Ok(builder.build().await?)
}
