//! Which keys the journal is sealed with, and whether they are there.

use super::Check;
use crate::journal::Settings;
use crate::journal::log::{self, OpenError};

const WHAT: &str = "journal keys";

/// Compares the keys that are configured with those in use. Reads the headers of the journal's files, and changes nothing.
pub(super) fn check(settings: &Settings) -> Check {
    let encryption = &settings.encryption;
    let uses = match log::key_use(&settings.dir) {
        Ok(uses) => uses,
        Err(error @ OpenError::Format { .. }) => {
            return Check::fail("journal format", error.to_string(), "it cannot be opened by this version");
        }
        Err(error) => return Check::warn(WHAT, error.to_string(), "whether a key is missing cannot be told"),
    };
    if let Err(error) = log::lacks(uses.clone(), encryption) {
        return Check::fail(WHAT, error.to_string(), "the gateway does not start without");
    }
    if encryption.keys.is_empty() {
        return Check::ok(WHAT, "there are none: nothing is sealed");
    }
    let seals = encryption.sealing().map(|key| key.id());
    let told = encryption.keys.iter().map(|key| {
        let does = if seals == Some(key.id()) { "seals" } else { "only opens" };
        match uses.iter().find(|of| of.key == key.id()) {
            Some(of) => format!("{of} {does}"),
            None if seals == Some(key.id()) => format!("{} seals", key.id()),
            None => format!("{} is no longer needed and may go", key.id()),
        }
    });
    Check::ok(WHAT, told.collect::<Vec<_>>().join(", "))
}
