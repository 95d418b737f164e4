//! A hit allocates nothing, but once per token in a service that is held. A binary
//! of its own: the counter takes the place of the global allocator.

#![expect(clippy::unwrap_used, reason = "a test says what must hold")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use officernd_auth::middleware::{AuthRequest, AuthResponse};
use officernd_auth::organizations::OrganizationsLayer;
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{BoxError, OfficeRndAuth, OfficeRndAuthLayer};
use tower::{Layer, Service};

const RUNS: usize = 1_000;

/// A held service copies the token at its second request: the token, the bytes of its
/// header, and their owner.
const COPY: u64 = 3;

/// Answers with responses made beforehand.
#[derive(Debug)]
struct Stock<Res>(Vec<Res>);

/// Only a miss clones the inner service for its own use; what a clone costs is
/// the service's affair. This one's is free.
impl<Res> Clone for Stock<Res> {
    fn clone(&self) -> Self {
        Self(Vec::new())
    }
}

impl<Req, Res> Service<Req> for Stock<Res> {
    type Response = Res;
    type Error = Infallible;
    type Future = Ready<Result<Res, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        let Some(response) = self.0.pop() else {
            panic!("sold out");
        };
        ready(Ok(response))
    }
}

/// A layer with its token, used once on this thread.
fn warm() -> OfficeRndAuthLayer {
    let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new())
        .allow_origin("https://gateway.example:8443")
        .build()
        .unwrap();
    runtime().block_on(layer.cache().token()).unwrap();
    assert!(layer.cache().try_token().is_some());
    layer
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn exchange<Req, Res>(
    client: &mut impl Service<Req, Response = Res, Error = BoxError>,
    request: Req,
) where
    Req: AuthRequest,
    Res: AuthResponse,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(client.poll_ready(&mut cx).is_ready());
    let mut response = pin!(client.call(request));
    match response.as_mut().poll(&mut cx) {
        Poll::Ready(Ok(_)) => {}
        _ => panic!("not a hit"),
    }
}

/// What `RUNS` exchanges allocate, by a way to go about one.
fn allocations<Req, Res>(
    request: impl Fn() -> Req,
    response: impl Fn() -> Res,
    mut one: impl FnMut(&mut OfficeRndAuth<Stock<Res>>, Req),
) -> u64
where
    Req: AuthRequest,
    Res: AuthResponse,
{
    let stock = (0..RUNS).map(|_| response()).collect();
    let mut client = warm().layer(Stock(stock));
    let requests: Vec<Req> = (0..RUNS).map(|_| request()).collect();
    let info = measure(|| {
        for request in requests {
            one(&mut client, request);
        }
    });
    assert!(client.get_ref().0.is_empty());
    info.count_total
}

fn http_request(uri: &'static str) -> http::Request<&'static str> {
    let mut request = http::Request::get(uri).body("").unwrap();
    *request.headers_mut() = HeaderMap::with_capacity(4);
    request
}

fn reqwest_request() -> reqwest::Request {
    let url = "https://app.officernd.com/api/v2".parse().unwrap();
    let mut request = reqwest::Request::new(reqwest::Method::GET, url);
    request.headers_mut().reserve(4);
    request
}

#[test]
fn a_held_service_allocates_once_per_token() {
    for uri in [
        "https://app.officernd.com/api/v2",
        "https://app.officernd.com:443/api/v2",
        "HTTPS://APP.OfficeRnD.com/api/v2",
        "https://gateway.example:8443/api/v2",
        "/api/v2",
    ] {
        for own in [None, Some(HeaderValue::from_static("Bearer own"))] {
            let request = || {
                let mut request = http_request(uri);
                if let Some(own) = &own {
                    request.headers_mut().insert(AUTHORIZATION, own.clone());
                }
                request
            };
            let response = || http::Response::new("");
            assert_eq!(allocations(request, response, exchange), COPY, "{uri}");
        }
    }
    let response = || reqwest::Response::from(http::Response::new(""));
    assert_eq!(allocations(reqwest_request, response, exchange), COPY);
}

#[test]
fn a_hit_of_one_of_many_organizations_allocates_nothing() {
    let acme = OfficeRndAuthLayer::new(ScriptedProvider::new());
    let layer = OrganizationsLayer::new(HashMap::from([("acme".to_owned(), acme)]));
    let request = || http_request("https://app.officernd.com/api/v2/organizations/acme/x");
    // The first request asks the resolver.
    let first = layer
        .layer(Stock(vec![http::Response::new("")]))
        .call(request());
    runtime().block_on(first).unwrap();
    let stock = (0..=RUNS).map(|_| http::Response::new("")).collect();
    let mut client = layer.layer(Stock(stock));
    exchange(&mut client, request());
    let requests: Vec<_> = (0..RUNS).map(|_| request()).collect();
    let info = measure(|| {
        for request in requests {
            exchange(&mut client, request);
        }
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn a_clone_of_the_service_per_request_allocates_nothing() {
    let request = || http_request("https://app.officernd.com/");
    let response = || http::Response::new("");
    let one = |client: &mut OfficeRndAuth<Stock<_>>, request| {
        let mut clone = client.clone();
        std::mem::swap(clone.get_mut(), client.get_mut());
        exchange(&mut clone, request);
        std::mem::swap(clone.get_mut(), client.get_mut());
    };
    assert_eq!(allocations(request, response, one), 0);
}
