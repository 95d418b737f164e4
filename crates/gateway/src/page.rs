//! The status page on the admin address, rendered by the server and without a script.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State as Extract;
use axum::http::HeaderName;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use officernd_auth::Phase;

use crate::apps::{Gateway, State};

/// The page has an inline style and loads nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>
<meta name=viewport content=\"width=device-width\"><meta http-equiv=refresh content=5>
<title>officernd-gateway</title><style>
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 1rem auto; padding: 0 1rem }
section { border: 1px solid #888; border-radius: .5rem; padding: 0 1rem; margin: 1rem 0 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem }
dl { display: grid; grid-template-columns: minmax(5rem, 30%) 1fr; gap: .2rem 1rem }
dt, dd { margin: 0; overflow-wrap: anywhere } .bad { font-weight: bold }
</style>
";

const LEGEND: &str = "<section><h2>How to read this</h2><dl>
<dt>cold<dd>the first token is being fetched
<dt>fresh<dd>requests are sent with this token
<dt>refresh_due, refreshing<dd>requests are sent with this token while the next one is fetched
<dt>expired, failing<dd>there is no valid token: requests and /readyz get 503
<dt>last error<dd>why the newest token request failed; cleared when one succeeds
</dl><p>The page reloads every 5 s. <a href=/readyz>/readyz</a> has the same as JSON,
<a href=/metrics>/metrics</a> is for Prometheus; `officernd-gateway check` tests the configuration.
</section>";

pub(crate) async fn page(Extract(gateway): Extract<Arc<Gateway>>) -> impl IntoResponse {
    let (ready, states) = gateway.states();
    let ready = match (ready, gateway.is_shutting_down()) {
        (_, true) => "shutting down",
        (true, _) => "ready",
        (false, _) => "not ready",
    };
    let failure = gateway.failures.last();
    let mut page = HEAD.to_owned();
    let version = env!("CARGO_PKG_VERSION");
    let _ = write!(
        page,
        "<h1>officernd-gateway {version}: {ready}</h1>\n\
         <dl><dt>API<dd>{}<dt>last API failure<dd>{}</dl>\n",
        escape(&gateway.config.upstream_text()),
        escape(failure.as_deref().unwrap_or("none"))
    );
    for state in &states {
        organization(&mut page, state);
    }
    page.push_str(LEGEND);
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, page)
}

fn organization(page: &mut String, state: &State) {
    let status = &state.status;
    let name = match state.organization.as_str() {
        "" => "Token".to_owned(),
        slug => format!("Token of {}", escape(slug)),
    };
    let bad = match status.phase {
        Phase::Expired | Phase::Failing => " class=bad",
        _ => "",
    };
    // serde has the names of the phases.
    let phase = serde_json::to_value(status.phase).unwrap_or_default();
    let left = match status.expires_in.map(|left| left.as_secs()) {
        Some(left) => format!("in {} min {} s", left / 60, left % 60),
        None => "no token".to_owned(),
    };
    let or_none = |text: &Option<String>| escape(text.as_deref().unwrap_or("none"));
    let _ = write!(
        page,
        "<section><h2>{name}</h2><dl><dt>state<dd{bad}>{}<dt>expires<dd>{left}\n\
         <dt>fetched so far<dd>{}<dt>scope<dd>{}<dt>last error<dd>{}<dt>store error<dd>{}</dl></section>\n",
        phase.as_str().unwrap_or_default(),
        status.generation,
        or_none(&status.scope),
        or_none(&state.problem),
        or_none(&state.store_problem),
    );
}

/// Escapes text for HTML.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}
