//! The credentials of the environment.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::source::{Part, Source};
use super::{ClientCredentials, SCOPE_EXAMPLES};
use crate::error::ConfigError;
use crate::secret::Secret;
use crate::syntax;

const CLIENT_ID: &str = "OFFICERND_CLIENT_ID";
const CLIENT_ID_FILE: &str = "OFFICERND_CLIENT_ID_FILE";
const CLIENT_SECRET: &str = "OFFICERND_CLIENT_SECRET";
const CLIENT_SECRET_FILE: &str = "OFFICERND_CLIENT_SECRET_FILE";
const SCOPE: &str = "OFFICERND_SCOPE";
const SCOPES: &str = "OFFICERND_SCOPES";
const TOKEN_URL: &str = "OFFICERND_TOKEN_URL";

/// `lookup` stands for the process's environment: tests must not change that.
pub(super) fn read(
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<ClientCredentials, ConfigError> {
    let text = |name: &'static str| match lookup(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Err(_)) => Err(invalid(name, "is not UTF-8")),
        Some(Ok(value)) if value.trim().is_empty() => Err(invalid(
            name,
            "is set but empty; set it to a value or unset it",
        )),
        Some(Ok(value)) => Ok(Some(value)),
    };
    let missing = |name| ConfigError::MissingVariable { name };

    let sound = |name, value: &str| match super::check::problem_of(value) {
        Some(problem) => Err(invalid(name, problem)),
        None => Ok(()),
    };
    // The value itself, or the file that holds it.
    let part = |value_name, file_name, either| match (text(value_name)?, lookup(file_name)) {
        (Some(_), Some(_)) => Err(ConfigError::ConflictingVariables {
            first: value_name,
            second: file_name,
        }),
        (Some(value), None) => {
            sound(value_name, &value)?;
            Ok(Part::Value(Secret::from(value)))
        }
        (None, Some(path)) if path.is_empty() => Err(invalid(
            file_name,
            "is set but empty; name a file or unset it",
        )),
        (None, Some(path)) => Ok(Part::File(path.into())),
        (None, None) => Err(missing(either)),
    };
    let id = part(
        CLIENT_ID,
        CLIENT_ID_FILE,
        "OFFICERND_CLIENT_ID (or OFFICERND_CLIENT_ID_FILE)",
    )?;
    let secret = part(
        CLIENT_SECRET,
        CLIENT_SECRET_FILE,
        "OFFICERND_CLIENT_SECRET (or OFFICERND_CLIENT_SECRET_FILE)",
    )?;
    let custom = None;
    let credentials = ClientCredentials::of(Source { id, secret, custom });
    let scopes =
        |value: String| -> Vec<String> { syntax::words(&value).map(str::to_owned).collect() };
    let same =
        |one: &[String], other: &[String]| BTreeSet::from_iter(one) == BTreeSet::from_iter(other);
    let (name, scopes) = match (text(SCOPE)?.map(scopes), text(SCOPES)?.map(scopes)) {
        (Some(one), Some(other)) if !same(&one, &other) => {
            return Err(ConfigError::ConflictingVariables {
                first: SCOPE,
                second: SCOPES,
            });
        }
        (Some(scopes), _) => (SCOPE, scopes),
        (None, Some(scopes)) => (SCOPES, scopes),
        (None, None) => return Err(missing("OFFICERND_SCOPE (or OFFICERND_SCOPES)")),
    };
    if scopes.is_empty() {
        let problem = format!("holds no scope, {SCOPE_EXAMPLES}");
        return Err(invalid(name, &problem));
    }
    let mut credentials = credentials.scopes(scopes);
    if let Err(error) = credentials.check() {
        return Err(invalid(name, &error.to_string()));
    }
    if let Some(url) = text(TOKEN_URL)? {
        credentials = credentials.token_url(url);
        if let Err(error) = credentials.check() {
            return Err(invalid(TOKEN_URL, &error.to_string()));
        }
    }
    Ok(credentials)
}

fn invalid(name: &'static str, problem: &str) -> ConfigError {
    let problem = match problem.split_once(' ') {
        // The checks name what they checked; the variable says it better.
        Some(("scope", problem)) => problem.to_owned(),
        _ => problem
            .strip_prefix("the token URL ")
            .unwrap_or(problem)
            .to_owned(),
    };
    ConfigError::InvalidVariable { name, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: [(&str, &str); 3] = [
        (CLIENT_ID, "id"),
        (CLIENT_SECRET, "hunter2"),
        (SCOPE, "a b"),
    ];

    fn with(changes: &[(&str, &str)]) -> Result<ClientCredentials, ConfigError> {
        read(|name| {
            let mut all = changes.iter().chain(&SOUND);
            let (_, value) = all.find(|(other, _)| *other == name)?;
            // "-" stands for unset.
            (*value != "-").then(|| OsString::from(value))
        })
    }

    #[test]
    fn two_variables_that_name_the_same_scopes_do_not_conflict() {
        for (one, other) in [("a b", "b,a"), ("a b", "a  b a")] {
            let credentials = with(&[(SCOPE, one), (SCOPES, other)]);
            let scope = credentials.unwrap().asked_scope();
            assert_eq!(scope.as_deref(), Some("a b"));
        }
        assert!(matches!(
            with(&[(SCOPE, "a"), (SCOPES, "a b")]),
            Err(ConfigError::ConflictingVariables { .. })
        ));
    }

    #[test]
    fn sound_variables_make_credentials() {
        let credentials = with(&[(
            TOKEN_URL,
            "https://identity-staging.officernd.com/oauth/token",
        )]);
        let credentials = credentials.unwrap();
        assert_eq!(credentials.asked_scope().as_deref(), Some("a b"));
        let pair = credentials.source.read().unwrap().unwrap();
        assert_eq!(pair.client_id, "id");
        assert_eq!(pair.client_secret.expose(), "hunter2");
        let token_url = credentials.check().unwrap();
        assert_eq!(token_url.host(), Some("identity-staging.officernd.com"));
    }

    #[test]
    fn scopes_may_be_separated_by_commas_and_be_said_twice() {
        let credentials = with(&[(SCOPE, "a, b,\nc"), (SCOPES, "a b c")]).unwrap();
        assert_eq!(credentials.asked_scope().as_deref(), Some("a b c"));
    }

    #[test]
    fn each_mistake_names_its_variable() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        #[rustfmt::skip]
        let table: [Case<'_>; 14] = [
            (&[(CLIENT_ID, "-")], &[CLIENT_ID, CLIENT_ID_FILE, "not set"]),
            (&[(CLIENT_ID_FILE, "/x")], &[CLIENT_ID, CLIENT_ID_FILE, "disagree"]),
            (&[(CLIENT_ID, "")], &[CLIENT_ID, "empty"]),
            (&[(CLIENT_ID, "a\nb")], &[CLIENT_ID, "control"]),
            (&[(CLIENT_SECRET, "-")], &[CLIENT_SECRET, CLIENT_SECRET_FILE, "not set"]),
            (&[(CLIENT_SECRET, " ")], &[CLIENT_SECRET, "empty"]),
            (&[(CLIENT_SECRET, "hunter2\n")], &[CLIENT_SECRET, "newline"]),
            (&[(CLIENT_SECRET_FILE, "/x")], &[CLIENT_SECRET, CLIENT_SECRET_FILE, "disagree"]),
            (&[(SCOPE, "-")], &[SCOPE, SCOPES, "not set"]),
            (&[(SCOPES, "c")], &[SCOPE, SCOPES, "disagree"]),
            (&[(SCOPE, ",")], &[SCOPE, "no scope"]),
            (&[(SCOPE, "a\"")], &[SCOPE, "RFC 6749"]),
            (&[(TOKEN_URL, "/oauth")], &[TOKEN_URL, "relative"]),
            (&[(TOKEN_URL, "http://example.com/")], &[TOKEN_URL, "https"]),
        ];
        for (changes, parts) in table {
            let error = with(changes).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{error}");
            }
            assert!(!error.contains("hunter2"));
        }
    }
}
