//! Whether the server may evict keys that this crate depends on.

use std::sync::Arc;

use ::redis::{RedisResult, Value, cmd};

use super::Shared;
use super::connection::Connection;
use crate::observability;

/// Asks in a task of its own, and warns. Without the right to ask, says nothing.
pub(super) fn check(shared: &Arc<Shared>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let shared = Arc::clone(shared);
    runtime.spawn(async move {
        let info: RedisResult<Value> = shared
            .link
            .run(|mut connection: Connection| async move {
                cmd("INFO").arg("memory").query_async(&mut connection).await
            })
            .await;
        let policy = info.ok().and_then(|info| eviction_policy(&info));
        if let Some(policy) = policy.filter(|policy| policy != "noeviction") {
            observability::store_evicts(&policy);
        }
    });
}

/// The policy in an answer to `INFO`; in a cluster, of the first node.
fn eviction_policy(info: &Value) -> Option<String> {
    let find = |text: &str| {
        let lines = text.lines();
        let policies = lines.filter_map(|line| line.trim().strip_prefix("maxmemory_policy:"));
        policies.map(str::to_owned).next()
    };
    match info {
        Value::BulkString(bytes) => find(std::str::from_utf8(bytes).ok()?),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => find(text),
        Value::Array(parts) => parts.iter().find_map(eviction_policy),
        Value::Map(parts) => parts.iter().find_map(|(_, part)| eviction_policy(part)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_found_in_any_shape_of_answer() {
        let text = "# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:volatile-ttl\r\n";
        let plain = Value::BulkString(text.into());
        let nodes = Value::Map(vec![(Value::Nil, plain.clone())]);
        for info in [plain, nodes] {
            assert_eq!(eviction_policy(&info).as_deref(), Some("volatile-ttl"));
        }
        assert_eq!(eviction_policy(&Value::Nil), None);
    }
}
