//! The keys of a file, taken one after the other, so that what is left in the end is what nobody knows.

use super::ConfigError;
use ipnet::IpNet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::{Table, Value};

/// What of a file has not been taken yet.
pub(super) struct Keys {
    file: PathBuf,
    table: Table,
}

impl Keys {
    pub(super) fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let table = text
            .parse::<Table>()
            .map_err(|e| ConfigError::Syntax { file: file.to_owned(), what: e.to_string().trim_end().to_owned() })?;
        Ok(Self { file: file.to_owned(), table })
    }

    pub(super) fn wrong(&self, key: &str, value: &str, allowed: &str) -> ConfigError {
        let (key, value, allowed) = (key.to_owned(), value.to_owned(), allowed.to_owned());
        ConfigError::Value { file: self.file.clone(), key, value, allowed }
    }

    /// One warning for each key that was not taken.
    pub(super) fn unknown(self) -> Vec<String> {
        let file = self.file.display();
        self.table.keys().map(|key| format!("{file}: the key {key} is not known and does nothing")).collect()
    }

    pub(super) fn string(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, &other.to_string(), "a string in quotes, not empty")),
        }
    }

    pub(super) fn strings(&mut self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let allowed = "a list of strings, such as [\"...\", \"...\"]";
        let list = match self.table.remove(key) {
            None => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(other) => return Err(self.wrong(key, &other.to_string(), allowed)),
        };
        let text = |value: Value| match value {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(key, &other.to_string(), allowed)),
        };
        list.into_iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    pub(super) fn networks(&mut self, key: &str) -> Result<Option<Vec<IpNet>>, ConfigError> {
        let Some(texts) = self.strings(key)? else { return Ok(None) };
        let network = |text: &String| match text.parse::<IpNet>() {
            Ok(network) => Ok(network.trunc()),
            Err(_) => Err(self.wrong(key, &format!("{text:?}"), "networks, such as \"10.0.0.0/8\" or \"fd00::/48\"")),
        };
        texts.iter().map(network).collect::<Result<_, _>>().map(Some)
    }

    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>, ConfigError> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(key, &other.to_string(), "true or false")),
        }
    }

    pub(super) fn number(&mut self, key: &str, min: i64, max: i64) -> Result<Option<i64>, ConfigError> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::Integer(value)) if (min..=max).contains(&value) => Ok(Some(value)),
            Some(other) => Err(self.wrong(key, &other.to_string(), &format!("a number from {min} to {max}"))),
        }
    }

    pub(super) fn parsed<T: FromStr>(&mut self, key: &str, allowed: &str) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.wrong(key, &format!("{text:?}"), allowed))
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                Err(self.wrong(key, &format!("{text:?}"), &format!("one of {}", names.join(", "))))
            }
        }
    }
}
