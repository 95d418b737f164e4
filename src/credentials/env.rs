//! The credentials of the environment.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::ClientCredentials;
use crate::error::ConfigError;
use crate::syntax;

const CLIENT_ID: &str = "OFFICERND_CLIENT_ID";
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

    let client_id = text(CLIENT_ID)?.ok_or(missing(CLIENT_ID))?;
    let sound = |name, value: &str| match super::problem_of(value) {
        Some(problem) => Err(invalid(name, problem)),
        None => Ok(()),
    };
    sound(CLIENT_ID, &client_id)?;
    let credentials = match (text(CLIENT_SECRET)?, lookup(CLIENT_SECRET_FILE)) {
        (Some(_), Some(_)) => {
            return Err(ConfigError::ConflictingVariables {
                first: CLIENT_SECRET,
                second: CLIENT_SECRET_FILE,
            });
        }
        (Some(secret), None) => {
            sound(CLIENT_SECRET, &secret)?;
            ClientCredentials::new(client_id, secret)
        }
        (None, Some(path)) if path.is_empty() => {
            return Err(invalid(
                CLIENT_SECRET_FILE,
                "is set but empty; name a file or unset it",
            ));
        }
        (None, Some(path)) => ClientCredentials::new(client_id, "").secret_from_file(path),
        (None, None) => {
            return Err(missing(
                "OFFICERND_CLIENT_SECRET (or OFFICERND_CLIENT_SECRET_FILE)",
            ));
        }
    };
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
        return Err(invalid(name, "holds no scope"));
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
        assert_eq!(credentials.client_id, "id");
        assert_eq!(credentials.asked_scope().as_deref(), Some("a b"));
        assert_eq!(credentials.read_secret().unwrap().expose(), "hunter2");
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
        let table: [Case<'_>; 13] = [
            (&[(CLIENT_ID, "-")], &["OFFICERND_CLIENT_ID is not set"]),
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
