//! SIGTERM: nothing that was sent is lost.

use std::time::Duration;

use officernd_auth::testing::{Fault, Simulator};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::child::{Gateway, LOCATIONS, until, within};
use crate::load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_loses_no_request_in_flight() {
    const IN_FLIGHT: usize = 50;
    let simulator = Simulator::start().await.unwrap();
    simulator
        .api_faults()
        .always(Fault::Delay(Duration::from_secs(2)));
    let mut gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let calls: Vec<_> = (0..IN_FLIGHT)
        .map(|_| tokio::spawn(gateway.http.get(gateway.url(LOCATIONS)).send()))
        .collect();
    until(|| simulator.api_requests() == IN_FLIGHT as u64).await;
    // One that is on its way but not all there, and a stream that never ends.
    let mut late = gateway.connect().await;
    late.write_all(b"GET /readyz HTTP/1.1\r\nhost: loc")
        .await
        .unwrap();
    let events = gateway.fetch("/events").await;
    gateway.terminate();
    until(|| gateway.said().contains("the last answers")).await;
    late.write_all(b"alhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(late.read_to_string(&mut answer)).await.unwrap();
    // It is served, and told to ask elsewhere.
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("\"phase\":\"fresh\""), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    for call in calls {
        let response = within(call).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.text().await.unwrap().contains("Main Street"));
    }
    assert!(within(events.text()).await.unwrap().contains("\"phase\""));
    assert!(gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_that_was_sent() {
    let simulator = Simulator::start().await.unwrap();
    let mut gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let load = load::start(&gateway);
    until(|| simulator.api_requests() >= 1_000).await;
    gateway.terminate();
    assert!(gateway.ended().await.success());
    let figures = load::figures(load).await;
    println!("{figures}");
    assert!(figures.contains(" 0 otherwise, 0 lost"), "{figures}");
    assert!(
        simulator.api_requests() < load::REQUESTS as u64,
        "left too late"
    );
}
