//! How a configuration comes together: flags over environment over file over defaults, and
//! which of them each value is from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use toml::{Table, Value};

use crate::config::Config;

/// What a variable of the environment begins with; the key follows in capitals.
pub const PREFIX: &str = "FARHELM_RELAY_";

/// Where a value is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File,
    /// A variable.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// Values as somebody set them, before they are one configuration.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    values: Table,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    /// Adds what a file says.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is not TOML.
    pub fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        let name = || format!("failed to read the configuration {}", path.display());
        let text = std::fs::read_to_string(path).with_context(name)?;
        self.add(text.parse().with_context(name)?, Origin::File);
        Ok(())
    }

    /// Adds what the environment says.
    ///
    /// # Errors
    ///
    /// When a variable with our prefix has no meaning.
    pub fn environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<()> {
        for (name, text) in variables {
            let Some(key) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let key = key.to_ascii_lowercase();
            if key == "config" || key == "log" {
                continue;
            }
            let value = parse(&key, &text).with_context(|| format!("{name} is not usable"))?;
            self.add(Table::from_iter([(key, value)]), Origin::Environment);
        }
        Ok(())
    }

    /// Adds what the command line says.
    pub fn flag(&mut self, key: &str, value: impl Into<Value>) {
        self.add(
            Table::from_iter([(key.to_owned(), value.into())]),
            Origin::Flag,
        );
    }

    /// Adds a value that nobody set, and that depends on the machine.
    pub fn data_default(&mut self, folder: PathBuf) -> anyhow::Result<()> {
        if !self.values.contains_key("data") {
            let folder = folder
                .into_os_string()
                .into_string()
                .ok()
                .context("the data folder is not text")?;
            self.values.insert("data".to_owned(), folder.into());
        }
        Ok(())
    }

    /// The configuration.
    ///
    /// # Errors
    ///
    /// When a key is unknown or a value does not fit.
    pub fn resolve(&self) -> anyhow::Result<Config> {
        let config: Config = self
            .values
            .clone()
            .try_into()
            .context("the configuration is not usable")?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as text, each value with its origin.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be resolved.
    pub fn explain(&self) -> anyhow::Result<String> {
        let table = Table::try_from(self.resolve()?)?;
        let line = |(key, value): (&String, &Value)| {
            let origin = self.origins.get(key).copied().unwrap_or(Origin::Default);
            format!("{key} = {value} # {origin}\n")
        };
        Ok(table.iter().map(line).collect())
    }

    fn add(&mut self, layer: Table, origin: Origin) {
        for (key, value) in layer {
            self.origins.insert(key.clone(), origin);
            self.values.insert(key, value);
        }
    }
}

/// Reads a variable by the type that its key has.
fn parse(key: &str, text: &str) -> anyhow::Result<Value> {
    Ok(match key {
        "listen" | "data" | "cert" | "key" => text.into(),
        "memory" => text
            .parse::<bool>()
            .context("expected true or false")?
            .into(),
        "public_urls" | "hosts" => {
            let parts = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            Value::Array(parts.map(Value::from).collect())
        }
        "blob_bytes_per_host"
        | "events_per_stream"
        | "ping_millis"
        | "dead_millis"
        | "hello_millis"
        | "unauthenticated" => text.parse::<i64>().context("expected a number")?.into(),
        _ => bail!("there is no such setting"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_layer_wins_and_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "memory = true\nping_millis = 1000\ndead_millis = 9000\n",
        )
        .unwrap();
        let mut layers = Layers::default();
        layers.file(file.path()).unwrap();
        let variables = [
            ("FARHELM_RELAY_PING_MILLIS", "2000"),
            ("FARHELM_RELAY_PUBLIC_URLS", "https://a.b, https://c"),
            ("HOME", "/"),
        ];
        layers
            .environment(
                variables
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into_iter(),
            )
            .unwrap();
        layers.flag("listen", "127.0.0.1:9");
        let config = layers.resolve().unwrap();
        assert_eq!((config.ping_millis, config.dead_millis), (2000, 9000));
        assert_eq!(config.public_urls, ["https://a.b", "https://c"]);
        let text = layers.explain().unwrap();
        for line in [
            "listen = \"127.0.0.1:9\" # flag",
            "ping_millis = 2000 # environment",
            "dead_millis = 9000 # file",
            "hello_millis = 5000 # default",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn misspelt_settings_are_refused() {
        let mut layers = Layers::default();
        layers.flag("memory", true);
        layers.flag("lisen", "127.0.0.1:9");
        assert!(layers.resolve().is_err());
        let misspelt = [("FARHELM_RELAY_LISEN".to_owned(), "x".to_owned())];
        assert!(Layers::default().environment(misspelt.into_iter()).is_err());
    }

    #[test]
    fn settings_that_do_not_fit_together_are_refused() {
        assert!(Config::default().check().is_err());
        assert!(
            Config {
                cert: Some("x".into()),
                ..Config::in_memory()
            }
            .check()
            .is_err()
        );
        assert!(
            Config {
                dead_millis: 1,
                ..Config::in_memory()
            }
            .check()
            .is_err()
        );
        assert!(Config::in_memory().check().is_ok());
    }
}
