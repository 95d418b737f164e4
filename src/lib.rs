//! draft
mod error;
mod secret;
pub use error::{BoxError, ConfigError, Error, ErrorKind};
pub use secret::Secret;
