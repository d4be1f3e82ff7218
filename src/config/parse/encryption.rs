//! `journal.encryption_key`: the keys that seal the journal at rest, and open it.
//!
//! No value is ever quoted here, nor its length.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use data_encoding::{BASE64, BASE64URL, HEXLOWER_PERMISSIVE};
use zeroize::Zeroizing;

use crate::base::Secret;
use crate::config::Config;
use crate::config::reader::{Field, Map, Outside};
use crate::journal::seal::{Encryption, EncryptionKey, KEY_BYTES};

const MAKE_ONE: &str = "make one with `openssl rand -base64 32`";
/// With fewer different bytes a key is no random one: of 32 random bytes all but a handful differ.
const DIFFERENT: usize = 16;

/// What stands at `encryption_key` of the journal's section.
pub fn encryption(map: &Map<'_>) -> Encryption {
    let Some(field) = map.unless_off("encryption_key") else { return Encryption::default() };
    let items = field.one_or_list();
    if items.is_empty() {
        field.error(format!("no key stands here; {MAKE_ONE}, or leave this out"));
    }
    let mut encryption = Encryption { keys: Vec::new(), seals: items.first().is_some_and(|first| !first.is_off()) };
    for (index, item) in items.iter().enumerate() {
        if item.is_off() {
            if index > 0 {
                item.error(
                    "`off` stands first, and says that nothing is sealed any more; the keys behind it only open",
                );
            }
            continue;
        }
        let Some(key) = key(item) else { continue };
        if encryption.has(key.id()) {
            item.error("the same key as one before it; take one of them away");
        }
        encryption.keys.push(key);
    }
    encryption
}

/// A key that is something else, too, is known to whoever knows that.
pub fn check_apart(root: &Map<'_>, config: &Config) {
    let Some(field) = root.section("journal").and_then(|map| map.unless_off("encryption_key")) else { return };
    let is_a_key = |secret: &Secret| {
        let decoded = written(secret.expose());
        let is = |key: &EncryptionKey| {
            key.matches(secret.expose()) || decoded.as_ref().is_some_and(|bytes| key.matches(&bytes[..]))
        };
        config.journal.encryption.keys.iter().any(is)
    };
    let error =
        |whose: String| field.error(format!("{whose}, too, so who knows that can open the journal; {MAKE_ONE}"));
    for source in &config.sources {
        if source.keyring.0.iter().flat_map(|(_, keys)| keys).any(|key| is_a_key(&key.secret)) {
            error(format!("the secret of source `{}`", source.name));
        }
    }
    for (name, token) in [("token", &config.admin.token), ("read_token", &config.admin.read_token)] {
        if token.as_ref().is_some_and(is_a_key) {
            error(format!("`admin.{name}`"));
        }
    }
}

fn key(field: &Field<'_>) -> Option<EncryptionKey> {
    let bytes = match field.file_bytes() {
        None => written(Zeroizing::new(field.secret_text()?.value).as_bytes()),
        Some(Err(_)) if field.reader().outside() == Outside::Spared => return None,
        Some(Err(why)) => {
            field.error(format!("{why}; name a file that can be read, or {MAKE_ONE}"));
            return None;
        }
        Some(Ok((path, bytes))) => {
            warn_of_readers(field, &path);
            let bytes = Zeroizing::new(bytes);
            written(&bytes).or_else(|| as_it_is(&bytes))
        }
    };
    let Some(bytes) = bytes else {
        field.error(format!(
            "not a key of 32 bytes in base64 or hexadecimal (a file may hold the bytes as they are); {MAKE_ONE}"
        ));
        return None;
    };
    if bytes.iter().collect::<std::collections::BTreeSet<_>>().len() < DIFFERENT {
        field.error(format!("has so few different bytes that it can be guessed; {MAKE_ONE}"));
        return None;
    }
    EncryptionKey::new(Secret::new(bytes.to_vec()))
}

/// The key that is written as base64, of either alphabet, or as hexadecimal.
fn written(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.trim_ascii();
    let decoded = match text.len() {
        64 => HEXLOWER_PERMISSIVE.decode(text).ok(),
        44 => BASE64.decode(text).or_else(|_| BASE64URL.decode(text)).ok(),
        _ => None,
    };
    decoded.map(Zeroizing::new).filter(|bytes| bytes.len() == KEY_BYTES)
}

/// The key that a file holds as it is. Text of this length is some other secret: random bytes are never all printable.
fn as_it_is(bytes: &Zeroizing<Vec<u8>>) -> Option<Zeroizing<Vec<u8>>> {
    let is_text = bytes.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    (bytes.len() == KEY_BYTES && !is_text).then(|| bytes.clone())
}

fn warn_of_readers(field: &Field<'_>, path: &Path) {
    const OTHERS: u32 = 0o006;
    if std::fs::metadata(path).is_ok_and(|facts| facts.mode() & OTHERS != 0) {
        field.warn("everybody on this machine may read or write the file; `chmod 600` it, and better make a new key");
    }
}
