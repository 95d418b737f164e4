//! What the fuzz targets (`fuzz/`) and the property tests drive: each takes any
//! bytes and asserts what must hold of the answer.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use url::Url;

use crate::credentials::ClientCredentials;
use crate::middleware;
use crate::oauth;
use crate::origin::OriginPolicy;
use crate::token::AccessToken;

/// The first bytes pick the status and a header; the rest is the body.
pub fn token_answer(data: &[u8]) {
    let (status, body) = data.split_at(data.len().min(2));
    let status = match status {
        [high, low] => u16::from_be_bytes([*high, *low]) % 500 + 100,
        _ => 200,
    };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(body.get(..8).unwrap_or_default()) {
        headers.insert("retry-after", value);
    }
    for status in [status, 200] {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        match oauth::parse_answer(status, &headers, body, Some("a b"), SystemTime::UNIX_EPOCH) {
            Ok(answer) => {
                let life = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
                assert!(life.contains(&answer.expires_in));
                assert!(AccessToken::bearer(answer.token, answer.expires_in).is_ok());
            }
            Err(error) => {
                if let Some(after) = error.retry_after() {
                    assert!(after >= Duration::from_secs(1));
                    assert!(after <= Duration::from_secs(60 * 60));
                }
                // Nothing of the body is quoted.
                let text = String::from_utf8_lossy(body);
                let quoted = text.split(|c: char| !c.is_ascii_graphic());
                for word in quoted.filter(|word| word.len() > 24) {
                    assert!(!format!("{error} {error:?}").contains(word));
                }
            }
        }
    }
}

/// A value of `Retry-After`.
pub fn retry_after(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in data.split(|&byte| byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append("retry-after", value);
        }
    }
    if let Some(after) = oauth::retry_after(&headers, SystemTime::UNIX_EPOCH) {
        assert!((Duration::from_secs(1)..=Duration::from_secs(60 * 60)).contains(&after));
    }
}

/// Values of `WWW-Authenticate`, a line each.
pub fn www_authenticate(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in data.split(|&byte| byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append("www-authenticate", value);
        }
    }
    if middleware::insufficient_scope(&headers) {
        // It was said somewhere, and of a Bearer challenge.
        let text = String::from_utf8_lossy(data).to_ascii_lowercase();
        assert!(text.contains("bearer") && text.contains("error"));
    }
}

/// A URL that we would send the token to, as `http` reads it, must be one of
/// ours as the `url` crate (and so reqwest and browsers) reads it.
pub fn origin(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (pattern, target) = text
        .split_once('\n')
        .unwrap_or(("https://example.com", text));
    let mut policy = OriginPolicy::default();
    let added = policy.allow(pattern).is_ok();
    let Ok(uri) = target.parse::<Uri>() else {
        return;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return;
    };
    if policy
        .check(Some(scheme), Some(authority.as_str()))
        .is_err()
    {
        return;
    }
    let url = Url::parse(target);
    let url = url.unwrap_or_else(|error| panic!("allowed, but no URL ({error}): {target:?}"));
    let host = url.host_str().unwrap_or_default();
    assert!(
        url.username().is_empty() && url.password().is_none(),
        "{target:?}"
    );
    let ours = host.ends_with(".officernd.com") && url.scheme() == "https";
    let ours = ours && url.port_or_known_default() == Some(443);
    let theirs = added && matches_naively(pattern, &url);
    assert!(ours || theirs, "{pattern:?} let {target:?} through");
}

/// Whether a URL is of the allowed origin, by the `url` crate alone.
fn matches_naively(pattern: &str, url: &Url) -> bool {
    let (wildcard, pattern) = match pattern.split_once("://*.") {
        Some((scheme, rest)) => (true, format!("{scheme}://{rest}")),
        None => (false, pattern.to_owned()),
    };
    let Ok(pattern) = Url::parse(&pattern) else {
        return false;
    };
    let (host, allowed) = (url.host_str(), pattern.host_str());
    let (host, allowed) = (host.unwrap_or_default(), allowed.unwrap_or_default());
    let hosts = match wildcard {
        true => host.ends_with(&format!(".{allowed}")),
        false => host == allowed,
    };
    hosts
        && url.scheme() == pattern.scheme()
        && url.port_or_known_default() == pattern.port_or_known_default()
}

/// Credentials and settings made of any text: a typed error or none, and never
/// the secret in it.
pub fn settings(data: &[u8]) {
    const SECRET: &str = "s3cr3t";

    let text = String::from_utf8_lossy(data);
    if text.contains(SECRET) {
        return;
    }
    let mut parts = text.split('\n');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let secret = format!("{SECRET}-{}", part());
    let credentials = ClientCredentials::new(part(), secret.as_str())
        .scope(part())
        .token_url(part())
        .form_param(part(), part());
    let shown = [
        format!("{credentials:?}"),
        format!("{:?}", credentials.check()),
        format!("{:?}", credentials.source.read().map(drop)),
    ];
    assert!(shown.iter().all(|text| !text.contains(SECRET)), "{shown:?}");
    let mut policy = OriginPolicy::default();
    if let Err(error) = policy.allow(&part()) {
        assert!(!error.to_string().is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 5] = [
        ("token_answer", token_answer),
        ("retry_after", retry_after),
        ("www_authenticate", www_authenticate),
        ("origin", origin),
        ("settings", settings),
    ];

    /// What was found, and what is typical. Not in the published crate.
    #[test]
    fn the_seeds_of_the_fuzz_targets_hold() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, target) in TARGETS {
            let Ok(folder) = fs::read_dir(seeds.join(name)) else {
                continue;
            };
            for seed in folder {
                target(&fs::read(seed.unwrap().path()).unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_hold(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, target) in TARGETS {
                target(&data);
            }
        }

        #[test]
        fn nearly_right_urls_hold(
            pattern in "https?://(\\*\\.)?(officernd\\.com|127\\.0\\.0\\.1|a\\.b)(:[0-9]{1,5})?/?",
            target in "(https?|HTTPS|ftp)://([a-z@:%;\\[\\]\\\\.#?]{0,6})(officernd\\.com|OfficeRnD\\.COM|127\\.0\\.0\\.1|x\\.a\\.b)[.@:;\\\\/?#]{0,2}[0-9]{0,3}[a-z./@]{0,8}",
        ) {
            origin(format!("{pattern}\n{target}").as_bytes());
        }

        #[test]
        fn nearly_right_answers_hold(
            fields in proptest::collection::vec(
                ("(access_token|token_type|expires_in|scope|error)",
                 "(\"[a-zA-Z0-9._~+/=\\\\n -]{0,12}\"|-?[0-9]{1,20}(\\.[0-9]{1,3})?(e[0-9]{1,3})?|null|true|\\{\\})"), 0..6)
        ) {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            token_answer(format!("\0\u{64}{{{}}}", fields.join(",")).as_bytes());
        }
    }
}
