//! draft
mod clock;
mod provider;
pub use self::clock::ManualClock;
pub use self::provider::{ScriptedProvider, Step};
