//! Layers out of [`Settings`].

use super::Builder;
use crate::allowance::Allowance;
use crate::config::Settings;
#[cfg(feature = "reqwest")]
use crate::error::ConfigError;
use crate::middleware::OfficeRndAuthLayer;
use crate::provider::TokenProvider;

impl Settings {
    /// The layer that these settings describe.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming what is missing or wrong.
    ///
    /// ```
    /// use officernd_auth::config::Settings;
    ///
    /// # fn main() -> Result<(), officernd_auth::ConfigError> {
    /// let mut settings = Settings::default();
    /// settings.client_id = Some("client-id".to_owned());
    /// settings.client_secret = Some("client-secret".into());
    /// settings.scopes = vec!["officernd.api.read".to_owned()];
    /// let layer = settings.layer()?;
    /// # drop(layer);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "reqwest")]
    pub fn layer(self) -> Result<OfficeRndAuthLayer, ConfigError> {
        let provider = crate::HttpTokenProvider::new(self.credentials()?)?;
        self.builder(provider).build()
    }

    /// A builder with these settings over a provider of your own, to go on
    /// from. [`credentials`](Self::credentials) are not looked at.
    ///
    /// ```
    /// use officernd_auth::StaticToken;
    /// use officernd_auth::config::Settings;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = Settings::default()
    ///     .builder(StaticToken::new("abc")?)
    ///     .allow_any_https_origin()
    ///     .build()?;
    /// # drop(layer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(&self, provider: impl TokenProvider) -> Builder {
        let mut builder = OfficeRndAuthLayer::builder(provider)
            .refresh_ahead(self.refresh_ahead)
            .jitter(self.jitter)
            .expiry_margin(self.expiry_margin)
            .fetch_timeout(self.fetch_timeout)
            .acquire_timeout(self.acquire_timeout)
            .keep_warm(self.keep_warm);
        if let Some(allowance) = self.allowance {
            builder = builder.allowance(Allowance::new(allowance.requests, allowance.per));
        }
        if self.pass_foreign_origins {
            builder = builder.pass_foreign_origins();
        }
        if self.if_not_present {
            builder = builder.if_not_present();
        }
        for origin in &self.allow_origins {
            builder = builder.allow_origin(origin);
        }
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::StaticToken;

    #[test]
    fn the_defaults_are_the_builders() {
        let provider = || StaticToken::new("abc").unwrap();
        let ours = Settings::default().builder(provider());
        let builders = OfficeRndAuthLayer::builder(provider());
        assert_eq!(format!("{ours:?}"), format!("{builders:?}"));
    }
}
