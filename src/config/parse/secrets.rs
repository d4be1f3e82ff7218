//! `secret` and `secrets` of a source: for each slot of its preset, one secret or several while rotating.
//!
//! No value is ever quoted here, nor its length.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::base::{Clock, Secret, SystemClock, UnixMillis};
use crate::config::problems::suggest;
use crate::config::reader::{Field, Map};
use crate::provider::{Check, Key, KeyEncoding, Keyring, Preset};

/// Shorter secrets can be guessed from one signed request.
const SHORT: usize = 16;

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
    match preset.secrets.as_slice() {
        [only] if field.is_scalar() || field.is_list() || is_dated(&field) => Keyring(vec![(
            only.name.clone(),
            keys(&field, Owner { source: name, slot: Some((&preset.verify, &only.name)) }),
        )]),
        slots if field.is_scalar() || field.is_list() => {
            let names: Vec<_> = slots.iter().map(|slot| format!("{}: …", slot.name)).collect();
            let cure = names.join(", ");
            field.error(format!("`{}` has {} secrets; write them by name, `{{ {cure} }}`", preset.name, slots.len()));
            Keyring::default()
        }
        _ => by_name(&field, name, preset),
    }
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
    match preset.secrets.as_slice() {
        [only] => {
            let hint = only.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("source `{source}` has no secret; write `secret: ${{{}}}`{hint}", variable(source, "secret"))
        }
        slots => {
            let slots: Vec<_> =
                slots.iter().map(|slot| format!("{}: \"${{{}}}\"", slot.name, variable(source, &slot.name))).collect();
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
            ring.push((entry.key.clone(), keys(value, Owner { source, slot: Some((&preset.verify, &entry.key)) })));
        } else {
            value.error_at_key(format!(
                "`{}` has no such secret; {}",
                preset.name,
                suggest(&entry.key, known().collect::<Vec<_>>())
            ));
        }
    }
    for slot in &preset.secrets {
        if !named.iter().any(|(entry, _)| entry.key == slot.name) {
            let hint = slot.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            let variable = variable(source, &slot.name);
            field.error(format!("source `{source}` has no `{0}`; write `{0}: ${{{variable}}}`{hint}", slot.name));
        }
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
    /// The check that will use it, and the slot it is in; none where the provider is not known.
    slot: Option<(&'o Check, &'o str)>,
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
    if let Some(encoding) = owner.slot.and_then(|(check, slot)| undecodable(check, slot, trimmed)) {
        let cure = "copy it again from the provider, whole";
        field.error(format!("not {encoding}, as this provider's secrets are; {cure}"));
        return None;
    }
    if trimmed.len() != text.value.len() {
        field.warn("has white space at an end, which counts; take it away unless the provider has it, too");
    }
    if trimmed.len() < SHORT {
        field.warn(format!(
            "shorter than {SHORT} bytes, so it can be guessed; take a longer one if the provider lets you"
        ));
    }
    Some(Secret::new(text.value))
}

/// The encoding that `check` wants the secret of `slot` in, where `text` is not in it.
fn undecodable(check: &Check, slot: &str, text: &str) -> Option<&'static str> {
    match check {
        Check::Hmac(hmac) if hmac.secret == slot => {
            let text =
                hmac.key.strip.as_deref().and_then(|prefix| text.strip_prefix(prefix)).unwrap_or(text).as_bytes();
            let base64 = [&BASE64, &BASE64_NOPAD, &BASE64URL, &BASE64URL_NOPAD];
            let (name, decodes) = match hmac.key.encoding {
                KeyEncoding::Utf8 => ("text", true),
                KeyEncoding::Hex => ("hex", HEXLOWER_PERMISSIVE.decode(text).is_ok()),
                KeyEncoding::Base64 => ("base64", base64.iter().any(|encoding| encoding.decode(text).is_ok())),
            };
            (!decodes || text.is_empty()).then_some(name)
        }
        Check::Any(checks) | Check::All(checks) => checks.iter().find_map(|check| undecodable(check, slot, text)),
        Check::Hmac(_) | Check::Token(_) | Check::Nothing => None,
    }
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
