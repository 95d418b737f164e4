//! Does not compile: the client is of reqwest 0.12. The target is built by tests/it/compiles.rs only.

use officernd_auth::{OfficeRndAuthLayer, StaticToken};

fn main() {
    let token = StaticToken::new("abc").unwrap();
    let layer = OfficeRndAuthLayer::new(token);
    let _client = layer.client(reqwest012::Client::new());
}
