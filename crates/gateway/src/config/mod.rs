//! The configuration: a TOML file under environment variables, validated as a
//! whole, so that one start names every mistake.

mod entries;
mod options;
mod organizations;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use axum::http::Uri;
use figment::value::{Dict, Value};
use officernd_auth::{ClientCredentials, HttpTokenProvider, Settings, StaticToken};

use self::entries::{Entries, File};
pub(crate) use self::options::{Listen, Options};
use crate::store::SharedStore;

const OFFICERND: &str = "https://app.officernd.com";

/// A valid configuration.
pub(crate) struct Config {
    pub(crate) options: Options,
    /// The library's settings, credentials excepted.
    pub(crate) settings: Settings,
    pub(crate) apps: Apps,
    pub(crate) upstream: Uri,
    pub(crate) store: Option<SharedStore>,
}

/// The OfficeRnD apps whose credentials are configured.
pub(crate) enum Apps {
    /// One app for every request. The slug is for the page and for `check`.
    One { slug: Option<String>, app: App },
    /// The organization in a request's path selects the app.
    PerOrganization {
        apps: BTreeMap<String, App>,
        default: Option<String>,
    },
}

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) credentials: ClientCredentials,
    /// The scopes that its tokens are asked for.
    pub(crate) scopes: Vec<String>,
}

impl App {
    /// The app in these settings, tried on a provider.
    fn new(settings: &Settings) -> Result<Self, String> {
        let credentials = settings.credentials();
        let credentials = credentials.map_err(|error| error.to_string())?;
        let provider = HttpTokenProvider::new(credentials.clone());
        provider.map_err(|error| error.to_string())?;
        Ok(Self {
            credentials,
            scopes: settings.scopes.clone(),
        })
    }
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<String>);

impl Mistakes {
    pub(crate) fn add(&mut self, place: impl fmt::Display, problem: impl fmt::Display) {
        self.0.push(format!("{place}: {problem}"));
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "the configuration has {count} mistake{plural}")?;
        self.0
            .iter()
            .try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl Config {
    /// Reads the file, if one is named here or by `GATEWAY_CONFIG`, and the
    /// environment.
    pub(crate) fn read(file: Option<PathBuf>) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::default();
        let config = Self::read_all(file, &mut mistakes);
        match config {
            Some(config) if mistakes.0.is_empty() => Ok(config),
            _ => Err(mistakes),
        }
    }

    /// Reads the gateway's own options only: enough for `healthcheck`.
    pub(crate) fn read_options(file: Option<PathBuf>) -> Result<Options, Mistakes> {
        let mut mistakes = Mistakes::default();
        let options = File::read(file, &mut mistakes)
            .map(|mut file| Entries::gateway(&mut file).check::<Options>(&mut mistakes));
        match options {
            Some(options) if mistakes.0.is_empty() => Ok(options),
            _ => Err(mistakes),
        }
    }

    fn read_all(file: Option<PathBuf>, mistakes: &mut Mistakes) -> Option<Self> {
        let mut file = File::read(file, mistakes)?;
        let organizations = file.take("organizations", mistakes);
        let library = Entries::library(&mut file, mistakes);
        let gateway = Entries::gateway(&mut file);

        let options: Options = gateway.check(mistakes);
        let mut settings: Settings = library.check(mistakes);
        library.each(|place, key, value| {
            // The builder reports the first setting that is out of its range.
            let one: Result<Settings, _> =
                Value::from(Dict::from([(key.to_owned(), value.clone())])).deserialize();
            if let (Ok(one), Ok(token)) = (one, StaticToken::new("unused"))
                && let Err(error) = one.builder(token).build()
            {
                mistakes.add(place, error);
            }
        });

        let slug = std::env::var("OFFICERND_ORG_SLUG").ok();
        let apps = if !organizations.is_empty() {
            let apps = organizations::read(&organizations, &library, &file, mistakes);
            let default = options.default_organization.clone();
            if let Some(default) = &default
                && !apps.contains_key(default)
            {
                let place = gateway.place("default_organization");
                mistakes.add(place, format_args!("[organizations.{default}] is missing"));
            }
            Some(Apps::PerOrganization { apps, default })
        } else {
            let app = App::new(&settings).map_err(|error| {
                let hint = match settings.client_id.is_none() && settings.client_id_file.is_none() {
                    true => {
                        "; to try the gateway, use the environment that officernd-simulator prints"
                    }
                    false => "",
                };
                mistakes.add("credentials", format_args!("{error}{hint}"));
            });
            app.ok().map(|app| Apps::One { slug, app })
        };

        let store = options.open_store().map_err(|error| {
            mistakes.add(gateway.place("store"), error);
        });
        let upstream = options.upstream.clone();
        let upstream = match upstream {
            Some(upstream) => upstream.0,
            None => OFFICERND.parse().ok()?,
        };
        options.check_together(&gateway, mistakes);
        settings.allow_origins.push(upstream.to_string());
        // A gateway replaces its callers' credentials, and is ready when asked.
        settings.if_not_present = false;
        settings.keep_warm = true;
        Some(Self {
            options,
            settings,
            apps: apps?,
            upstream,
            store: store.ok()?,
        })
    }
}
