use std::collections::BTreeMap;

/// The apps of the simulated organization: the client secret of each client id.
#[derive(Clone)]
pub(super) struct Apps {
    /// The app that the simulator's accessors describe.
    pub(super) main: String,
    secrets: BTreeMap<String, String>,
}

impl Apps {
    pub(super) fn new(client_id: String, client_secret: String) -> Self {
        let main = client_id.clone();
        let secrets = BTreeMap::from([(client_id, client_secret)]);
        Self { main, secrets }
    }

    /// Adds an app, or gives it another secret.
    pub(super) fn set(&mut self, client_id: String, client_secret: String) {
        self.secrets.insert(client_id, client_secret);
    }

    pub(super) fn delete(&mut self, client_id: &str) {
        self.secrets.remove(client_id);
    }

    pub(super) fn secret(&self, client_id: &str) -> Option<&str> {
        self.secrets.get(client_id).map(String::as_str)
    }
}
