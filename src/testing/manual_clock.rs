use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::clock::{Clock, Sleep, TokioClock};

/// A clock that a test advances. Clones are the same clock.
///
/// Advancing it wakes the timeouts and backoffs that wait for it.
///
/// ```
/// use officernd_auth::testing::{ManualClock, ScriptedProvider};
/// use officernd_auth::OfficeRndAuthLayer;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = ManualClock::new();
/// let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new())
///     .clock(clock.clone())
///     .build()?;
/// layer.cache().warm_up().await?;
/// clock.advance_wall(Duration::from_secs(3600)); // like a suspended machine
/// assert!(layer.cache().try_token().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock {
    time: Arc<watch::Sender<(Instant, SystemTime)>>,
}

impl ManualClock {
    /// Creates a clock that is stopped at the current time.
    #[must_use]
    pub fn new() -> Self {
        let start = (TokioClock.now(), TokioClock.wall());
        let time = Arc::new(watch::Sender::new(start));
        Self { time }
    }

    /// Advances both clocks.
    pub fn advance(&self, by: Duration) {
        self.time.send_modify(|(now, wall)| {
            *now += by;
            *wall += by;
        });
    }

    /// Advances only the wall clock, like a suspend or a correction of the clock.
    pub fn advance_wall(&self, by: Duration) {
        self.time.send_modify(|(_, wall)| *wall += by);
    }

    /// Sets only the wall clock back.
    pub fn rewind_wall(&self, by: Duration) {
        self.time.send_modify(|(_, wall)| *wall -= by);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.time.borrow().0
    }

    fn wall(&self) -> SystemTime {
        self.time.borrow().1
    }

    fn sleep_until(&self, until: Instant) -> Sleep {
        let mut time = self.time.subscribe();
        Box::pin(async move {
            if time.wait_for(|(now, _)| *now >= until).await.is_err() {
                // The last clock was dropped, so the time never comes.
                std::future::pending().await
            }
        })
    }
}
