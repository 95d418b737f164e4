//! `[organizations.SLUG]`: one app per organization.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};
use officernd_auth::Settings;

use super::entries::{Entries, File};
use super::{App, Mistakes};

/// What an organization has for itself. Everything else is set once, in
/// `[officernd]`.
const OWN: [&str; 6] = [
    "client_id",
    "client_id_file",
    "client_secret",
    "client_secret_file",
    "scopes",
    "token_url",
];

const BELONGS_TO_EACH: &str = "belongs into each [organizations.SLUG], as there are several";

/// The apps by slug. `scopes` and `token_url` may come from
/// `[officernd]`.
pub(super) fn read(
    organizations: &Dict,
    library: &Entries,
    file: &File,
    mistakes: &mut Mistakes,
) -> BTreeMap<String, App> {
    let mut shared = Dict::new();
    library.each(|place, key, value| match key {
        "client_id" | "client_id_file" | "client_secret" | "client_secret_file" => {
            mistakes.add(place, BELONGS_TO_EACH);
        }
        "scopes" | "scope" => {
            shared.insert("scopes".to_owned(), value.clone());
        }
        "token_url" => {
            shared.insert(key.to_owned(), value.clone());
        }
        _ => {}
    });
    let mut found = BTreeMap::new();
    for (slug, table) in organizations {
        let place = file.place(&format!("organizations.{slug}"));
        if !is_slug(slug) {
            let problem = "is no slug: letters, digits, '-' and '_', at most 63 of them";
            mistakes.add(&place, problem);
        }
        let Value::Dict(_, table) = table else {
            mistakes.add(&place, "must be a table");
            continue;
        };
        match one(table, shared.clone(), &place, mistakes) {
            Ok(app) => {
                found.insert(slug.clone(), app);
            }
            Err(problem) => mistakes.add(&place, problem),
        }
    }
    found
}

fn one(table: &Dict, mut all: Dict, place: &str, mistakes: &mut Mistakes) -> Result<App, String> {
    for (key, value) in table {
        if OWN.contains(&key.as_str()) {
            all.insert(key.clone(), value.clone());
        } else {
            let problem = format!("is not one of {}", OWN.join(", "));
            mistakes.add(format_args!("{place}.{key}"), problem);
        }
    }
    let settings: Settings = Value::from(all)
        .deserialize()
        .map_err(|error: figment::Error| error.kind.to_string())?;
    App::new(&settings)
}

fn is_slug(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&text.len()) && text.bytes().all(valid)
}
