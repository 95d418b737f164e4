mod rules;
mod subject;

use std::fmt;

use crate::error::Error;
use crate::fleet::{StoreKey, TokenStore, random};

/// A rule of [`TokenStore`] that a store broke.
///
/// ```
/// use officernd_auth::testing::{MemoryStore, Violation, check_store};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let result: Result<(), Violation> = check_store(&MemoryStore::new()).await;
/// assert!(result.is_ok());
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Violation {
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store breaks a rule: {}", self.rule)
    }
}

impl std::error::Error for Violation {}

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        let rule = format!("operations succeed ({error})");
        Self { rule }
    }
}

/// Checks that a store keeps the rules of [`TokenStore`]: run it on your own.
///
/// Uses new keys and leaves nothing that does not end by itself, so it may
/// share the store with others. Waits for content to end, about two seconds in
/// all; a store on tokio's clock can be checked with that paused.
///
/// # Errors
///
/// The first rule that the store broke.
///
/// ```
/// use officernd_auth::testing::{MemoryStore, check_store};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), officernd_auth::testing::Violation> {
/// // In place of this: your own.
/// let store = MemoryStore::new();
/// check_store(&store).await?;
/// # Ok(())
/// # }
/// ```
pub async fn check_store<S: TokenStore>(store: &S) -> Result<(), Violation> {
    rules::leases(store).await?;
    rules::entries(store).await?;
    rules::fences(store).await?;
    rules::places(store).await?;
    rules::changes(store).await
}

fn must(kept: bool, rule: &str) -> Result<(), Violation> {
    if kept {
        return Ok(());
    }
    let rule = rule.to_owned();
    Err(Violation { rule })
}

fn fresh() -> Result<StoreKey, Error> {
    Ok(StoreKey::digest_of(&random::<16>()?))
}

/// All at once, on this task.
async fn all<T, F>(futures: impl Iterator<Item = F>) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|cx| {
        let mut failed = None;
        running.retain_mut(|future| match future.as_mut().poll(cx) {
            std::task::Poll::Pending => true,
            std::task::Poll::Ready(Ok(output)) => {
                done.push(output);
                false
            }
            std::task::Poll::Ready(Err(error)) => {
                failed = Some(error);
                false
            }
        });
        match failed {
            Some(error) => std::task::Poll::Ready(Err(error)),
            None if running.is_empty() => std::task::Poll::Ready(Ok(())),
            None => std::task::Poll::Pending,
        }
    })
    .await?;
    Ok(done)
}
