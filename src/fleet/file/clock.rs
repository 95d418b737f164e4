//! The clock that all processes of one host share.

/// A time, and the boot that it belongs to.
pub(super) struct HostTime {
    /// Empty where the wall clock is all there is.
    pub(super) boot: String,
    pub(super) millis: u64,
}

/// Time since boot, suspends included: no correction of the wall clock moves it.
#[cfg(target_os = "linux")]
pub(super) fn now() -> HostTime {
    use std::sync::OnceLock;

    static BOOT: OnceLock<String> = OnceLock::new();

    let boot = BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.unwrap_or_default().trim().to_owned()
    });
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    HostTime {
        boot: boot.clone(),
        millis: seconds
            .saturating_mul(1000)
            .saturating_add(nanos / 1_000_000),
    }
}

/// The wall clock. If it is set back, leases and places are shortened to the
/// longest that they can be; if it is set forward, they end early.
#[cfg(not(target_os = "linux"))]
pub(super) fn now() -> HostTime {
    use super::super::store::whole_millis;
    use crate::clock::{Clock as _, TokioClock};

    let wall = TokioClock.wall().duration_since(std::time::UNIX_EPOCH);
    HostTime {
        boot: String::new(),
        millis: whole_millis(wall.unwrap_or_default()),
    }
}
