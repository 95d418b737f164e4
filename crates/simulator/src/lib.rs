#![doc = include_str!("../README.md")]
//!
//! ## Time
//!
//! The simulator reads tokio's clock, so a test can let a token age, or a rate limit's window pass, without waiting:
//! `tokio::time::pause()`, `advance(life).await`, `resume()`. Don't leave the clock paused while requests are sent: when
//! every task waits for a socket, a paused clock jumps to the next timer, which is usually your client's timeout.

mod api;
mod fault;
mod oauth;
mod recorded;
mod reply;
mod server;
mod settings;
mod simulator;
mod state;
mod tokens;

pub use self::fault::{Fault, Faults};
pub use self::recorded::RecordedRequest;
pub use self::settings::SimulatorBuilder;
pub use self::simulator::Simulator;
