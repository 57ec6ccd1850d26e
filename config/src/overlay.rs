//! Lays a file and the environment over the defaults, one key at a time, so that every bad key is found and not only
//! the first.
//!
//! The defaults are written out as a TOML table. Each given value is put into a copy of it, alone, and the copy is
//! read as the settings type: the type itself decides what is a known key and a good value. What reads stays; what
//! does not becomes a [`Problem`]. The cost is one small parse for each given key.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::marker::PhantomData;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use crate::check::Checks;
use crate::problem::{Problem, Problems, Source};

const PREFIX: &str = "RUNIT_";

pub(crate) struct Overlay<T> {
    table: Table,
    sources_by_key: BTreeMap<String, Source>,
    problems: Vec<Problem>,
    settings: PhantomData<T>,
}

impl<T: Default + Serialize + DeserializeOwned> Overlay<T> {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::try_from(T::default()).expect("settings are structs of TOML values; a test writes them"),
            sources_by_key: BTreeMap::new(),
            problems: Vec::new(),
            settings: PhantomData,
        }
    }

    pub(crate) fn add_file(&mut self, file: &SettingsFile<'_>) {
        let table = match file.text.parse::<Table>() {
            Ok(table) => table,
            // Not the error's Display: it quotes the line, and the line may hold a secret.
            Err(error) => {
                let line = error.span().map(|span| file.line_at(span.start));
                return self.report("", file.source(line), error.message());
            }
        };
        for (section, value) in table {
            let Value::Table(keys) = value else {
                self.report(&section, file.source(file.line_of(&section, None)), "stands outside every [section]");
                continue;
            };
            if !self.table.contains_key(&section) {
                let message = self.unknown_section();
                self.report(&section, file.source(file.line_of(&section, None)), message);
                continue;
            }
            for (key, value) in keys {
                let source = file.source(file.line_of(&section, Some(&key)));
                self.lay(&section, &key, &[value], source);
            }
        }
    }

    /// Variables that are not settings (`RUNIT_DEBIAN_MIRROR`) and those of `neighbours` are left alone; one that
    /// names a section but lacks the double underscore is a slip, and reported.
    pub(crate) fn add_variable(&mut self, name: &OsStr, value: &OsStr, neighbours: &[&str]) {
        let Some(path) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            return;
        };
        let path = path.to_lowercase();
        let source = Source::Environment(name.to_string_lossy().into_owned());
        let Some((section, key)) = path.split_once("__") else {
            let slip = path.split_once('_').filter(|(section, _)| self.table.contains_key(*section));
            if let Some((section, key)) = slip {
                let meant = format!("{PREFIX}{}__{}", section.to_uppercase(), key.to_uppercase());
                self.report(&format!("{section}.{key}"), source, format!("did you mean {meant}?"));
            }
            return;
        };
        if !self.table.contains_key(section) {
            if !neighbours.contains(&section) {
                let message = self.unknown_section();
                self.report(section, source, message);
            }
            return;
        }
        match value.to_str() {
            Some(text) => self.lay(section, key, &readings(text), source),
            None => self.report(&format!("{section}.{key}"), source, "is not UTF-8"),
        }
    }

    /// The settings, if nothing was wrong. A key that already has a problem is not checked further: what stands in
    /// its place is the default.
    pub(crate) fn finish(mut self, check: fn(&T, &mut Checks<'_>)) -> Result<T, Problems> {
        let settings = T::deserialize(self.table).expect("every value was read as part of this table when it was laid");
        let mut checks = Checks::new(&self.sources_by_key);
        check(&settings, &mut checks);
        let found = checks.into_problems();
        let fresh: Vec<_> =
            found.into_iter().filter(|new| self.problems.iter().all(|old| old.key != new.key)).collect();
        self.problems.extend(fresh);
        if self.problems.is_empty() { Ok(settings) } else { Err(Problems(self.problems)) }
    }

    /// Puts the first of `readings` that the type takes at `section.key`.
    fn lay(&mut self, section: &str, key: &str, readings: &[Value], source: Source) {
        let path = format!("{section}.{key}");
        let mut refusal = None;
        for value in readings {
            let mut candidate = self.table.clone();
            candidate[section].as_table_mut().expect("a section is a table").insert(key.to_owned(), value.clone());
            match T::deserialize(candidate.clone()) {
                Ok(_) => {
                    self.table = candidate;
                    self.sources_by_key.insert(path, source);
                    return;
                }
                Err(error) => {
                    refusal.get_or_insert_with(|| error.message().to_owned());
                }
            }
        }
        let refusal = refusal.unwrap_or_default();
        let message = match refusal.strip_prefix(&format!("unknown field `{key}`")) {
            Some(rest) => format!("unknown key{rest}"),
            None => refusal,
        };
        self.report(&path, source, message);
    }

    fn unknown_section(&self) -> String {
        let known: Vec<_> = self.table.keys().map(String::as_str).collect();
        format!("unknown section, expected one of {}", known.join(", "))
    }

    fn report(&mut self, key: &str, source: Source, message: impl Into<String>) {
        self.problems.push(Problem { key: key.to_owned(), source, message: message.into() });
    }
}

/// What the text of a variable may mean: a TOML value, else the text as it stands.
fn readings(text: &str) -> Vec<Value> {
    let as_toml = format!("value = {text}").parse::<Table>().ok().filter(|table| table.len() == 1);
    as_toml.and_then(|mut table| table.remove("value")).into_iter().chain([Value::String(text.to_owned())]).collect()
}

/// A settings file's text, with the name that messages use for it.
pub(crate) struct SettingsFile<'a> {
    name: &'a Path,
    text: &'a str,
    spans: Option<Spanned<DeTable<'a>>>,
}

impl<'a> SettingsFile<'a> {
    pub(crate) fn new(name: &'a Path, text: &'a str) -> Self {
        Self { name, text, spans: DeTable::parse(text).ok() }
    }

    fn source(&self, line: Option<usize>) -> Source {
        Source::File { path: self.name.to_owned(), line }
    }

    fn line_of(&self, section: &str, key: Option<&str>) -> Option<usize> {
        let (name, value) = self.spans.as_ref()?.get_ref().get_key_value(section)?;
        let span = match (key, value.get_ref()) {
            (Some(key), DeValue::Table(keys)) => keys.get_key_value(key)?.0.span(),
            _ => name.span(),
        };
        Some(self.line_at(span.start))
    }

    fn line_at(&self, byte: usize) -> usize {
        self.text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1
    }
}
