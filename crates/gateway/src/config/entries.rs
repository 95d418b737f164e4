//! Settings by name, each with the place where it was written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use figment::Provider;
use figment::error::Kind;
use figment::providers::{Env, Format as _, Toml};
use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;

use super::Mistakes;

/// The configuration file's tables.
pub(super) struct File {
    name: String,
    dict: Dict,
}

impl File {
    /// Reads the file; without one, nothing. `None` if it cannot be read.
    pub(super) fn read(file: Option<PathBuf>, mistakes: &mut Mistakes) -> Option<Self> {
        let file = file.or_else(|| std::env::var_os("GATEWAY_CONFIG").map(PathBuf::from));
        let Some(path) = file else {
            let (name, dict) = (String::new(), Dict::new());
            return Some(Self { name, dict });
        };
        let name = path.display().to_string();
        match Toml::file_exact(&path).data() {
            Ok(data) => {
                let dict = data.into_values().next().unwrap_or_default();
                Some(Self { name, dict })
            }
            Err(error) => {
                mistakes.add(name, error.kind);
                None
            }
        }
    }

    /// Takes out a table of tables.
    pub(super) fn take(&mut self, table: &str, mistakes: &mut Mistakes) -> Dict {
        match self.dict.remove(table) {
            Some(Value::Dict(_, dict)) => dict,
            Some(_) => {
                mistakes.add(self.place(table), "must be a table");
                Dict::new()
            }
            None => Dict::new(),
        }
    }

    pub(super) fn place(&self, key: &str) -> String {
        format!("{}: {key}", self.name)
    }
}

struct Entry {
    place: String,
    value: Value,
}

/// One table of settings, the environment laid over the file.
pub(super) struct Entries {
    entries: BTreeMap<String, Entry>,
    prefix: &'static str,
}

impl Entries {
    /// The gateway's own settings: the file's top level under `GATEWAY_*`.
    pub(super) fn gateway(file: &mut File) -> Self {
        let env = Env::prefixed("GATEWAY_").ignore(&["config"]);
        // The environment always has a value for a name: this cannot fail.
        let variables = env.data().unwrap_or_default().into_values().next();
        let table = std::mem::take(&mut file.dict);
        Self::merge(file, "", table, "GATEWAY_", variables.unwrap_or_default())
    }

    /// The library's settings: the file's `[officernd]` under `OFFICERND_*`.
    pub(super) fn library(file: &mut File, mistakes: &mut Mistakes) -> Self {
        let table = file.take("officernd", mistakes);
        let env = Env::prefixed("OFFICERND_").ignore(&["api_url", "org_slug"]);
        // Kubernetes makes some for a Service called officernd.
        let is_ours = |key: &str| {
            let key = format!("_{key}_");
            !key.contains("_port_") && !key.contains("_service_")
        };
        // As text: a secret of digits is a secret.
        let variables = env.iter().filter(|(key, _)| is_ours(key.as_str()));
        let variables = variables.map(|(key, text)| (key.into_string(), text.into()));
        Self::merge(file, "officernd.", table, "OFFICERND_", variables.collect())
    }

    fn merge(file: &File, table: &str, dict: Dict, prefix: &'static str, variables: Dict) -> Self {
        let mut entries = BTreeMap::new();
        for (key, value) in dict {
            let place = file.place(&format!("{table}{key}"));
            entries.insert(key, Entry { place, value });
        }
        for (key, value) in variables {
            let place = format!("{prefix}{}", key.to_uppercase());
            entries.insert(key, Entry { place, value });
        }
        Self { entries, prefix }
    }

    /// Where a setting was written, or the variable that would set it.
    pub(super) fn place(&self, key: &str) -> String {
        match self.entries.get(key) {
            Some(entry) => entry.place.clone(),
            None => format!("{}{}", self.prefix, key.to_uppercase()),
        }
    }

    pub(super) fn each(&self, mut visit: impl FnMut(&str, &str, &Value)) {
        for (key, entry) in &self.entries {
            visit(&entry.place, key, &entry.value);
        }
    }

    /// The settings that are valid, each tried alone: one mistake does not hide
    /// the next.
    pub(super) fn check<T: DeserializeOwned + Default>(&self, mistakes: &mut Mistakes) -> T {
        let mut valid = Dict::new();
        for (key, Entry { place, value }) in &self.entries {
            let alone = Dict::from([(key.clone(), value.clone())]);
            match Value::from(alone).deserialize::<T>() {
                Ok(_) => {
                    valid.insert(key.clone(), value.clone());
                }
                Err(error) => mistakes.add(place, describe(&error.kind)),
            }
        }
        Value::from(valid).deserialize().unwrap_or_default()
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(_, known) => format!("is not a setting; known are {}", known.join(", ")),
        kind => kind.to_string(),
    }
}
