mod rules;
mod subject;

use std::fmt;
use std::future::poll_fn;
use std::task::Poll;

use crate::error::Error;
use crate::fleet::{Name, TokenStore, random};

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
    rules::places(store).await
}

fn must(kept: bool, rule: &str) -> Result<(), Violation> {
    if kept {
        return Ok(());
    }
    let rule = rule.to_owned();
    Err(Violation { rule })
}

fn fresh() -> Result<Name, Error> {
    Ok(Name::digest_of(&random::<16>()?))
}

/// Makes all claims at once, on this task. Returns how many were granted.
async fn granted<F>(claims: impl Iterator<Item = F>) -> Result<usize, Error>
where
    F: Future<Output = Result<bool, Error>>,
{
    let mut running: Vec<_> = claims.map(Box::pin).collect();
    let mut done = Vec::new();
    poll_fn(|cx| {
        running.retain_mut(|claim| match claim.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(granted) => {
                done.push(granted);
                false
            }
        });
        if running.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    let mut results = done.into_iter();
    results.try_fold(0, |count, granted| Ok(count + usize::from(granted?)))
}
