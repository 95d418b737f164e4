//! What the concurrent core is made of, in two editions: the real one, and one
//! whose every step a model checker schedules (`--cfg shuttle`, tests/model.rs).

#[cfg(shuttle)]
#[path = "model.rs"]
mod edition;
#[cfg(shuttle)]
pub use self::edition::{kill_flights, settle_flights};
#[cfg(not(shuttle))]
#[path = "real.rs"]
mod edition;

pub(crate) use self::edition::{AtomicBool, AtomicU64, Mutex, Ordering};
pub(crate) use self::edition::{Guard, Runtime, Swap};
