//! `secret` and `secrets` of a source: for each slot of its preset, one secret or several while rotating.
//!
//! No value is ever quoted here, nor its length.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::base::{Clock, Secret, SystemClock, UnixMillis};
use crate::config::problems::suggest;
use crate::config::reader::{Field, Map};
use crate::provider::{Check, Key, Keyring, Preset, SecretSlot, bad_secret};

/// Shorter secrets can be guessed from one signed request.
const SHORT: usize = 16;
/// With fewer different characters it is no random one, nor a phrase.
const DIFFERENT: usize = 6;

/// The secrets of the source called `name`, for the slots of `preset`.
pub fn keyring(map: &Map<'_>, name: &str, preset: &Preset) -> Keyring {
    let field = match (map.get("secret"), map.get("secrets")) {
        (Some(_), Some(secrets)) => {
            secrets.error("`secret` and `secrets` both stand here; keep `secrets`, the first of them signs");
            return Keyring::default();
        }
        (Some(secret), None) => {
            if secret.is_list() {
                secret.error("a list stands here; write it under `secrets`");
                return Keyring::default();
            }
            secret
        }
        (None, Some(secrets)) => {
            if secrets.is_scalar() {
                secrets.error("one value stands here; write it under `secret`, or a list of them here");
                return Keyring::default();
            }
            secrets
        }
        (None, None) => {
            map.missing("secret", missing(name, preset));
            return Keyring::default();
        }
    };
    if !field.is_scalar() && !field.is_list() && !is_dated(&field) {
        return by_name(&field, name, preset);
    }
    if let Some(slot) = preset.main_slot() {
        let owner = Owner { source: name, slot: Some((preset, &slot.name)) };
        Keyring(vec![(slot.name.clone(), keys(&field, owner))])
    } else {
        let required: Vec<_> = required(preset).map(|slot| format!("{}: …", slot.name)).collect();
        let cure = required.join(", ");
        field.error(format!("`{}` needs {} secrets; write them by name, `{{ {cure} }}`", preset.name, required.len()));
        Keyring::default()
    }
}

fn required(preset: &Preset) -> impl Iterator<Item = &SecretSlot> {
    preset.secrets.iter().filter(|slot| !slot.optional)
}

/// Looks at the secrets of a source whose provider is not known, so that an empty one is found all the same.
pub fn read_all(map: &Map<'_>, source: &str) {
    for field in ["secret", "secrets"].into_iter().filter_map(|key| map.get(key)) {
        for item in field.one_or_list().iter().filter(|item| item.is_scalar()) {
            secret(item, Owner { source, slot: None });
        }
    }
}

/// What to write where a source has no secret.
fn missing(source: &str, preset: &Preset) -> String {
    match preset.main_slot() {
        Some(only) => {
            let hint = only.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("source `{source}` has no secret; write `secret: ${{{}}}`{hint}", variable(source, "secret"))
        }
        None => {
            let slots: Vec<_> = required(preset)
                .map(|slot| format!("{}: \"${{{}}}\"", slot.name, variable(source, &slot.name)))
                .collect();
            format!("source `{source}` has no secrets; write `secret: {{ {} }}`", slots.join(", "))
        }
    }
}

/// A good name for the variable that holds a secret.
fn variable(source: &str, slot: &str) -> String {
    let word = format!("{source}_{slot}");
    let word: String =
        word.chars().map(|char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' }).collect();
    if word.starts_with(|first: char| first.is_ascii_digit()) { format!("_{word}") } else { word }
}

fn by_name(field: &Field<'_>, source: &str, preset: &Preset) -> Keyring {
    let known = || preset.secrets.iter().map(|slot| slot.name.as_str());
    let mut ring = Vec::new();
    let named = field.named();
    for (entry, value) in &named {
        if known().any(|slot| slot == entry.key) {
            ring.push((entry.key.clone(), keys(value, Owner { source, slot: Some((preset, &entry.key)) })));
        } else {
            let cure = suggest(&entry.key, known().collect::<Vec<_>>());
            field.error_at_entry(entry, format!("`{}` has no secret of this name; {cure}", preset.name));
        }
    }
    for slot in required(preset) {
        if !named.iter().any(|(entry, _)| entry.key == slot.name) {
            let hint = slot.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            let variable = variable(source, &slot.name);
            field.error(format!("source `{source}` has no `{0}`; write `{0}: ${{{variable}}}`{hint}", slot.name));
        }
    }
    let named = |slot: &str| named.iter().any(|(entry, _)| entry.key == slot);
    if required(preset).all(|slot| named(&slot.name)) && !preset.verify.can_hold(&|slot: &str| !named(slot)) {
        let slots: Vec<_> = preset.secrets.iter().map(|slot| format!("`{}`", slot.name)).collect();
        field.error(format!("source `{source}` has no secret to check anything by; write one of {}", slots.join(", ")));
    }
    Keyring(ring)
}

/// Whether this is one `{ value, not_after }`.
fn is_dated(field: &Field<'_>) -> bool {
    !field.is_scalar() && !field.is_list() && field.has("value")
}

/// The secrets of one slot: one, or a list.
fn keys(field: &Field<'_>, owner: Owner<'_>) -> Vec<Key> {
    let keys: Vec<Key> = field.one_or_list().iter().filter_map(|item| key(item, owner)).collect();
    if field.is_list() && field.one_or_list().is_empty() {
        field.error(format!("source `{}` has no secret; write at least one", owner.source));
    }
    let now = SystemClock.now();
    if !keys.is_empty() && keys.iter().all(|key| key.not_after.is_some_and(|end| end < now)) {
        field.error("past its `not_after`, so every request would be answered 401; add a secret that is good now");
    }
    keys
}

fn key(field: &Field<'_>, owner: Owner<'_>) -> Option<Key> {
    if field.is_scalar() || !field.is_mapping() {
        return Some(Key { secret: secret(field, owner)?, not_after: None });
    }
    let map = field.map_at("sources.*.secrets")?;
    let not_after = map.get("not_after").and_then(|field| field.parse("a date or a time", moment));
    match map.get("value") {
        Some(value) => Some(Key { secret: secret(&value, owner)?, not_after }),
        None => {
            map.missing("value", "no secret; write `value: ${…}`");
            None
        }
    }
}

/// Whose secret it is.
#[derive(Clone, Copy)]
struct Owner<'o> {
    source: &'o str,
    /// The preset that will use it, and the slot it is in; none where the provider is not known.
    slot: Option<(&'o Preset, &'o str)>,
}

fn secret(field: &Field<'_>, owner: Owner<'_>) -> Option<Secret> {
    let text = field.secret_text()?;
    let trimmed = text.value.trim();
    if trimmed.is_empty() {
        let source = owner.source;
        let cure = format!("set it, or write `verify: none` if anybody may send to `{source}`");
        field.error(format!("the secret of source `{source}` is empty; {cure}"));
        return None;
    }
    if let Some(problem) = owner.slot.and_then(|(preset, slot)| bad_secret(preset, slot, trimmed.as_bytes())) {
        field.error(problem.to_string());
        return None;
    }
    if trimmed.len() != text.value.len() {
        field.warn("has white space at an end, which counts; take it away unless the provider has it, too");
    }
    if trimmed.len() < SHORT && !owner.slot.is_some_and(|(preset, slot)| is_name(preset, slot)) {
        field.warn(format!(
            "shorter than {SHORT} bytes, so it can be guessed; take a longer one if the provider lets you"
        ));
    }
    let different: std::collections::BTreeSet<u8> = trimmed.bytes().collect();
    if trimmed.len() >= SHORT && different.len() < DIFFERENT {
        field.warn(format!("has fewer than {DIFFERENT} different characters, so it can be guessed; take a random one"));
    }
    Some(Secret::new(text.value))
}

/// Whether `slot` is a name that goes with a password: that may be short.
fn is_name(preset: &Preset, slot: &str) -> bool {
    let named = |leaf: &Check| matches!(leaf, Check::Basic(basic) if basic.username.as_deref() == Some(slot));
    let names = preset.checks().flat_map(Check::leaves).filter(|leaf| named(leaf)).count();
    names > 0 && names == preset.used_slots().filter(|used| *used == slot).count()
}

/// The last moment of a day, UTC, or the moment itself.
fn moment(text: &str) -> Result<UnixMillis, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(UnixMillis(time.as_millisecond()));
    }
    let day = if text.len() == "2027-01-31".len() { text } else { "" }; // jiff takes the date of a time without a zone
    let day_end = day.parse::<Date>().and_then(Date::tomorrow).and_then(|next| next.to_zoned_datetime(TimeZone::UTC));
    match day_end {
        Ok(next) => Ok(UnixMillis(next.timestamp().as_millisecond() - 1)),
        Err(_) => {
            Err(format!("`{text}` is not a date or a time; write one like `2027-01-31` or `2027-01-31T12:00:00Z`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_good_through_its_last_day() {
        assert_eq!(moment("2027-01-01").unwrap().to_string(), "2027-01-01T23:59:59.999Z");
        assert_eq!(moment("2027-01-01T12:00:00+01:00").unwrap().to_string(), "2027-01-01T11:00:00.000Z");
        for text in ["", "2027-13-01", "1.1.2027", "2027-01-01T12:00:00"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_is_named_after_its_source() {
        assert_eq!(variable("acme-eu", "secret"), "ACME_EU_SECRET");
        assert_eq!(variable("3d", "key"), "_3D_KEY");
    }
}
