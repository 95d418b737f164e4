//! What a provider that wraps another one can rely on: places, permits and time limits. All with
//! the clock paused.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use officernd_auth::testing::{ScriptedProvider, Step};
use officernd_auth::{
    AccessToken, Builder, Error, ErrorKind, FetchContext, OfficeRndAuthLayer, RateLimit,
    StaticToken, TokenCache, TokenProvider, backoff,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;

use crate::support::{Stopwatch, ms, poll, s, served};

/// What a wrapped provider returned, and whether it sent anything.
type Finished = (Option<ErrorKind>, bool);

/// Does as it is told before and after it fetches from the wrapped provider.
#[derive(Clone)]
struct Wrapper<P> {
    inner: P,
    before: Duration,
    after: Duration,
    finished: Arc<Mutex<Vec<Finished>>>,
}

impl<P> Wrapper<P> {
    fn new(inner: P, before: Duration, after: Duration) -> Self {
        Self {
            inner,
            before,
            after,
            finished: Arc::default(),
        }
    }

    fn finished(&self) -> Vec<Finished> {
        self.finished.lock().unwrap().clone()
    }
}

impl<P: TokenProvider> TokenProvider for Wrapper<P> {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let place = cx.reserve().await?;
        sleep(self.before).await;
        let result = cx.fetch_from(&self.inner, place).await;
        sleep(self.after).await;
        let kind = result.as_ref().err().map(Error::kind);
        let sent = cx.sent_at().is_some();
        self.finished.lock().unwrap().push((kind, sent));
        result
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.inner.rate_limit()
    }
}

fn cache(provider: impl TokenProvider, set: impl FnOnce(Builder) -> Builder) -> TokenCache {
    let builder = OfficeRndAuthLayer::builder(provider).jitter(0.0);
    let builder = builder.rate_limit(RateLimit::new(1, s(60)));
    set(builder).build().unwrap().cache().clone()
}

#[tokio::test(start_paused = true)]
async fn the_fetch_timeout_ends_the_wrapped_request_and_not_the_wrapper() {
    let hangs = || ScriptedProvider::new().then(Step::Hang);
    let once = Wrapper::new(hangs(), s(0), s(4));
    let twice = Wrapper::new(Wrapper::new(hangs(), s(0), s(2)), s(0), s(2));
    let (one, two) = (cache(once.clone(), |it| it), cache(twice.clone(), |it| it));
    let check = async {
        sleep(ms(14_100)).await;
        let timed_out = [(Some(ErrorKind::Timeout), true)];
        assert_eq!(once.finished(), timed_out);
        assert_eq!(twice.finished(), timed_out);
        assert_eq!(twice.inner.finished(), timed_out);
    };
    let _ = tokio::join!(one.token(), two.token(), check);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_just_in_time_is_not_lost_though_its_callers_are_late() {
    let wrapper = Wrapper::new(ScriptedProvider::new().latency(s(9)), s(3), s(4));
    let cache = cache(wrapper, |builder| builder.acquire_timeout(s(4)));
    assert_eq!(cache.token().await.unwrap_err().kind(), ErrorKind::Timeout);
    sleep(s(13)).await;
    let token = cache.try_token().unwrap();
    assert_eq!(token.header_value(), "Bearer scripted-1");
    // Its life counts from the permit, at 3 s.
    let left = cache.status().expires_in.unwrap();
    assert!(left <= s(3600 - 14 + 1) && left > s(3600 - 15), "{left:?}");
    assert_eq!(cache.status().token_requests, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_may_continue_until_the_deadline_after_its_request() {
    let wrapper = Wrapper::new(ScriptedProvider::new(), s(0), s(29));
    let cache = cache(wrapper, |builder| builder);
    // Another caller would replace the fetch if it were overdue.
    let late = async {
        sleep(s(28)).await;
        cache.token().await
    };
    let (first, late) = tokio::join!(cache.token(), late);
    assert_eq!(served(&first), "Bearer scripted-1");
    assert_eq!(served(&late), "Bearer scripted-1");
}

/// Drops the sender with its first fetch.
struct Guarded<P>(P, Mutex<Option<oneshot::Sender<()>>>);

impl<P: TokenProvider> TokenProvider for Guarded<P> {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let _guard = self.1.lock().unwrap().take();
        self.0.fetch(cx).await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.0.rate_limit()
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_that_does_not_end_is_stopped_in_time_for_the_next_fetch() {
    // Before it calls the wrapped provider, while that is slow to ask for a permit, and after it.
    for (before, slow, after, stops_at) in [
        (s(1000), s(0), s(0), s(30)),
        (s(0), s(1000), s(1000), s(35)),
        (s(25), s(0), s(1000), s(40)),
    ] {
        let (guard, dropped) = oneshot::channel();
        let start = Stopwatch::start();
        let is_stopped = async {
            dropped.await.unwrap_err();
            start.elapsed()
        };
        let inner = Wrapper::new(ScriptedProvider::new(), slow, s(0));
        let wrapper = Wrapper::new(inner, before, after);
        let cache = cache(Guarded(wrapper, Mutex::new(Some(guard))), |it| it);
        let (_, stopped) = tokio::join!(cache.token(), is_stopped);
        assert_eq!(stopped, stops_at);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reserved_place_is_taken_by_the_wrapped_request_or_free_again() {
    let rate_limit = RateLimit::new(1, s(60));
    let with = |builder: Builder| builder.rate_limit(rate_limit.clone());
    // It sends nothing.
    let fixed = Wrapper::new(StaticToken::new("fixed").unwrap(), s(0), s(0));
    let token = cache(fixed.clone(), with).token().await;
    assert_eq!(served(&token), "Bearer fixed");
    assert_eq!(fixed.finished(), [(None, false)]);
    // So there is a place, which the next takes without waiting for another.
    let endpoint = ScriptedProvider::new();
    let start = Stopwatch::start();
    let sends = Wrapper::new(endpoint.clone(), s(1), s(0));
    let sending = cache(sends.clone(), with);
    assert_eq!(served(&sending.token().await), "Bearer scripted-1");
    assert_eq!(sends.finished(), [(None, true)]);
    assert_eq!(start.elapsed(), s(1));
    assert_eq!(sending.status().token_requests, 1);
    let error = cache(fixed, with).token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(endpoint.calls(), 1);
}

/// Its connection is never made.
#[derive(Clone, Default)]
struct Unreachable(Arc<AtomicUsize>);

impl TokenProvider for Unreachable {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let permit = cx.permit().await?;
        assert!(cx.sent_at().is_some());
        self.0.fetch_add(1, Ordering::SeqCst);
        sleep(s(1)).await;
        permit.unsent();
        Err(Error::new(ErrorKind::Transport, "connection refused"))
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_connection_was_never_made_takes_no_place_and_is_not_counted() {
    let wrapper = Wrapper::new(Unreachable::default(), s(0), s(0));
    // One a minute, and yet it is tried again.
    let cache = cache(wrapper.clone(), |it| it);
    for _ in 0..3 {
        cache.token().await.unwrap_err();
        sleep(s(30)).await;
    }
    assert!(wrapper.inner.0.load(Ordering::SeqCst) >= 3);
    assert_eq!(cache.status().token_requests, 0);
    let transport = (Some(ErrorKind::Transport), false);
    assert!(wrapper.finished().iter().all(|it| *it == transport));
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_can_tell_that_a_connection_was_never_made_by_the_backoff() {
    let cx = FetchContext::default();
    let place = cx.reserve().await.unwrap();
    let result = cx.fetch_from(&Unreachable::default(), place).await;
    assert_eq!(backoff(&result.unwrap_err(), 1, 1.0), ms(500));
    assert_eq!(cx.sent_at(), None);

    let failing = ScriptedProvider::new().then(Step::Fail(ErrorKind::Transport));
    let place = cx.reserve().await.unwrap();
    let result = cx.fetch_from(&failing, place).await;
    assert_eq!(backoff(&result.unwrap_err(), 1, 1.0), s(1));
}

/// Never asks for a permit, and never ends.
struct Never;

impl TokenProvider for Never {
    async fn fetch(&self, _cx: FetchContext) -> Result<AccessToken, Error> {
        std::future::pending().await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

/// Looks at the wrapped provider only now and then.
struct Slow<P>(P, Arc<AtomicUsize>);

impl<P: TokenProvider> TokenProvider for Slow<P> {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let place = cx.reserve().await?;
        let mut fetch = pin!(cx.fetch_from(&self.0, place));
        let result = loop {
            if let Poll::Ready(result) = poll(fetch.as_mut()) {
                break result;
            }
            sleep(ms(300)).await;
        };
        self.1.fetch_add(1, Ordering::SeqCst);
        result
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

async fn late_to_see_the_end(inner: impl TokenProvider, ends_at: Duration) {
    let finished = Arc::default();
    let set = |builder: Builder| builder.acquire_timeout(s(31));
    let cache = cache(Slow(inner, Arc::clone(&finished)), set);
    let _ = tokio::join!(cache.token(), async {
        sleep(ends_at + ms(100)).await;
        assert_eq!(finished.load(Ordering::SeqCst), 0);
        sleep(ms(200)).await;
        assert_eq!(finished.load(Ordering::SeqCst), 1);
    });
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_that_is_late_to_see_a_time_limit_is_not_cut_off_by_it() {
    late_to_see_the_end(ScriptedProvider::new().then(Step::Hang), s(10)).await;
    late_to_see_the_end(Never, s(31)).await;
}

#[tokio::test(start_paused = true)]
async fn a_429_closes_the_window_before_the_wrapper_has_ended() {
    let rate_limit = RateLimit::new(5, s(60));
    let with = |builder: Builder| builder.rate_limit(rate_limit.clone());
    let refused = Error::new(ErrorKind::RateLimited, "429").with_retry_after(s(50));
    let refuses = ScriptedProvider::new().then(Step::Error(refused));
    let first = cache(Wrapper::new(refuses, s(0), s(4)), with);
    let check = async {
        // The end of the wrapper, at 4 s, does not close it anew.
        for (wait, left) in [(s(1), s(49)), (s(4), s(45))] {
            sleep(wait).await;
            let other = cache(ScriptedProvider::new(), with);
            let error = other.token().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::RateLimited);
            assert_eq!(error.retry_after(), Some(left));
        }
    };
    let (_, ()) = tokio::join!(first.token(), check);
}

/// Connects, and sends when it is told to.
struct Parked(Arc<Notify>, Arc<AtomicUsize>);

impl TokenProvider for Parked {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let _permit = cx.permit().await?;
        self.0.notified().await;
        self.1.fetch_add(1, Ordering::SeqCst);
        AccessToken::bearer("late", s(3600))
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_given_up_while_its_runtime_stood_still_sends_nothing() {
    for (parked, sends) in [(s(14), 1), (s(16), 0)] {
        let (connected, sent) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let provider = Parked(Arc::clone(&connected), Arc::clone(&sent));
        let cache = cache(provider, |it| it);
        let mut call = pin!(cache.token());
        assert!(poll(call.as_mut()).is_pending());
        sleep(ms(1)).await;
        connected.notify_one();
        // Both have come about when the runtime goes on.
        tokio::time::advance(parked).await;
        let _ = call.await;
        assert_eq!(sent.load(Ordering::SeqCst), sends, "{parked:?}");
    }
}

/// Goes on as long as a wrapper may, and asks for a permit at its end.
struct Late(mpsc::UnboundedSender<Option<ErrorKind>>);

impl TokenProvider for Late {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        for _ in 0..2 {
            let place = cx.reserve().await?;
            let _ = cx.fetch_from(&Never, place).await;
            sleep(s(4)).await;
        }
        let refused = cx.permit().await.err();
        self.0.send(refused.map(|error| error.kind())).unwrap();
        AccessToken::bearer("late", s(3600))
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_whose_fetch_was_given_up_gets_no_permit() {
    let (refused, mut is_refused) = mpsc::unbounded_channel();
    let cache = cache(Late(refused), |builder| {
        builder.rate_limit(RateLimit::unlimited())
    });
    // The fetch stops at 30 s, is given up 5 s later, and goes on until 38 s.
    cache.token().await.unwrap_err();
    sleep(s(6)).await;
    assert!(poll(pin!(cache.token())).is_pending(), "the next fetch");
    assert_eq!(is_refused.recv().await, Some(Some(ErrorKind::Runtime)));
}
