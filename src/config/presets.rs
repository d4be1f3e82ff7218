//! The presets there are: built in, in a directory, and inline.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::base::Name;
use crate::provider::{KeyRule, Preset};

use super::problems::{Problem, Problems};
use super::reader::{Field, Map, Outside, Reader, plain};
use super::tree::FILE_BYTES_MAX;
use super::{include, preset};

/// `config/providers/*.yaml` as the build found them: name and text, by name.
pub const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/presets.rs"));

/// Preset files in one directory, at most.
const DIR_FILES_MAX: usize = 1_000;

/// The presets that are compiled in, by name.
///
/// # Errors
/// [`Problems`] of all files. A test of the build holds that there are none.
pub fn built_in() -> Result<Vec<Preset>, Problems> {
    let mut presets = Vec::new();
    let mut found = Vec::new();
    for (name, text) in FILES {
        let (preset, problems) = read_built_in(name, text);
        presets.extend(preset);
        found.extend(problems);
    }
    Problems::settle(found, Some(presets)).map(|(presets, _)| presets)
}

/// The presets of its own that the config at `path` has, by name, whatever else is or is not set.
///
/// # Errors
/// The config's problems.
pub fn own(path: &Path, env: &super::expand::Env<'_>) -> Result<Vec<Preset>, Problems> {
    let reader = Reader::new(env).with(Outside::Spared);
    let own = include::open(&reader, path).and_then(|node| {
        let mut presets = Presets::default();
        if let Some(providers) = reader.root(&node, "").map()?.get("providers") {
            presets.read_own(&providers);
        }
        let mut own: Vec<Preset> = presets.usable.iter().map(|preset| Preset::clone(preset)).collect();
        own.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        Some(own)
    });
    Problems::settle(reader.into_problems(), own).map(|(own, _)| own)
}

fn read_built_in(name: &str, text: &str) -> (Option<Preset>, Vec<Problem>) {
    let reader = Reader::new(&|_| None);
    let preset = read(&reader, Path::new(&format!("config/providers/{name}.yaml")), name, text);
    (preset, reader.into_problems())
}

/// The preset called `name` that `text` holds, the file at `path`; what is wrong with it goes to `reader`.
fn read(reader: &Reader<'_>, path: &Path, name: &str, text: &str) -> Option<Preset> {
    let file = reader.file(&path.display().to_string(), path.parent().unwrap_or(Path::new("")));
    let node = reader.tree(file, text)?;
    let root = reader.root(&node, "providers.*");
    preset::parse(root.name(name)?, &root)
}

/// The presets that a config can name.
#[derive(Default)]
pub(super) struct Presets {
    /// The user's own first.
    usable: Vec<Arc<Preset>>,
    /// The names of those that have problems.
    broken: Vec<String>,
}

impl Presets {
    /// Those of the config `root`, and the built-in ones that they do not replace.
    pub fn of(root: &Map<'_>) -> Self {
        let mut presets = Self::default();
        if let Some(providers) = root.get("providers") {
            presets.read_own(&providers);
        }
        match built_in() {
            Ok(built_in) => {
                let new: Vec<_> = built_in.into_iter().filter(|preset| !presets.has(preset.name.as_str())).collect();
                presets.usable.extend(new.into_iter().map(Arc::new));
            }
            Err(problems) => root.field().reader().absorb(problems.0),
        }
        presets
    }

    /// The one called `name`, or that has it for an alias.
    pub fn find(&self, name: &str) -> Option<Arc<Preset>> {
        let alias = |preset: &&Arc<Preset>| preset.aliases.iter().any(|alias| alias.as_str() == name);
        let named = self.usable.iter().find(|preset| preset.name.as_str() == name);
        named.or_else(|| self.usable.iter().find(alias)).map(Arc::clone)
    }

    /// Whether `name` is one that has problems.
    pub fn is_broken(&self, name: &str) -> bool {
        self.broken.iter().any(|broken| broken == name)
    }

    /// All names and aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.usable.iter().flat_map(|preset| preset.aliases.iter().chain([&preset.name])).map(Name::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.is_broken(name) || self.usable.iter().any(|preset| preset.name.as_str() == name)
    }

    fn read_own(&mut self, providers: &Field<'_>) {
        for (entry, field) in providers.named() {
            if entry.key == "dir" {
                for (name, preset) in in_dir(&field) {
                    self.add(name, preset, &field);
                }
            } else if let Some(name) = field.name(&entry.key) {
                let preset = preset::parse(name, &field);
                self.add(entry.key.clone(), preset, &field);
            }
        }
    }

    fn add(&mut self, name: String, preset: Option<Preset>, field: &Field<'_>) {
        if self.has(&name) {
            field.error(format!("there is another preset `{name}` under `providers`; give one of them another name"));
        } else if FILES.iter().any(|(built_in, _)| *built_in == name) {
            field.warn_at_key(format!(
                "replaces the built-in preset `{name}`; give it another name if that is not meant"
            ));
        }
        match preset {
            Some(preset) => self.usable.push(Arc::new(preset)),
            None => self.broken.push(name),
        }
    }
}

/// The presets of a directory by name; none where one has problems.
fn in_dir(field: &Field<'_>) -> Vec<(String, Option<Preset>)> {
    let Some(text) = field.text() else { return Vec::new() };
    let reader = field.reader();
    let dir = field.beside(Path::new(&text.value));
    reader.touch(&dir);
    let names = match preset_names(&dir) {
        Ok(names) => names,
        Err(why) => {
            let dir = field.file_in_words(&text);
            field.error(format!("{dir} cannot be used: {why}; name a directory that can be read"));
            return Vec::new();
        }
    };
    let mut presets = Vec::new();
    for name in names {
        let path = dir.join(format!("{name}.yaml"));
        match reader.read(&path, FILE_BYTES_MAX) {
            Ok(text) => {
                let preset = read(reader, &path, &name, &text);
                presets.push((name, preset));
            }
            Err(why) => field.error(format!("the preset {name}.yaml cannot be used: {why}; mend it, or take it out")),
        }
    }
    presets
}

fn preset_names(dir: &Path) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| plain(&error))? {
        let path = entry.map_err(|error| plain(&error))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
        if names.len() > DIR_FILES_MAX {
            return Err(format!("it has more than {DIR_FILES_MAX} presets"));
        }
    }
    names.sort();
    Ok(names)
}

/// The one of `presets` called `name`, or one that has it for an alias.
#[must_use]
pub fn find<'p>(presets: &'p [Preset], name: &str) -> Option<&'p Preset> {
    let is_it = |candidate: &Name| candidate.as_str() == name;
    presets
        .iter()
        .find(|preset| is_it(&preset.name))
        .or_else(|| presets.iter().find(|preset| preset.aliases.iter().any(is_it)))
}

/// What makes two requests of a preset's provider one event: what it says; else the event's id; else what is signed.
#[must_use]
pub fn default_key(preset: &Preset) -> KeyRule {
    match (&preset.event.dedupe, &preset.event.id) {
        (Some(rule), _) => rule.clone(),
        (None, Some(id)) => KeyRule::Parts(vec![id.clone()]),
        (None, None) => KeyRule::Signed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_preset_is_without_problem_or_warning() {
        for (name, text) in FILES {
            let (preset, problems) = read_built_in(name, text);
            assert!(problems.is_empty(), "{}", Problems(problems));
            assert_eq!(preset.unwrap().name.as_str(), *name);
        }
    }

    #[test]
    fn no_two_built_in_presets_share_a_name() {
        let presets = built_in().unwrap();
        let mut names: Vec<_> = presets.iter().flat_map(|preset| preset.aliases.iter().chain([&preset.name])).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
