//! The keyed hashes that claims go by: nobody outside can aim for a collision, nor read a dedupe key off the disk.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::stored::StoredClaim;
use crate::base::UnixMillis;
use crate::event::DedupeKey;
use crate::journal::Claim;

/// `claim` as it is kept, made at `now` by the journal's time.
pub fn stored(key: &[u8; 32], now: UnixMillis, claim: &Claim) -> StoredClaim {
    let keyed = |dedupe: &DedupeKey| {
        // A key is 32 bytes and HMAC takes any; the fallback is never reached.
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| <Hmac<Sha256> as KeyInit>::new(&Default::default()));
        mac.update(&dedupe.0);
        mac.finalize().into_bytes()
    };
    let mut hash = [0; 16];
    hash.iter_mut().zip(keyed(&claim.key)).for_each(|(to, from)| *to = from);
    if let Some(same) = &claim.same_body {
        hash.iter_mut().zip(keyed(same)).take(8).for_each(|(to, from)| *to = from); // claims::prefix
    }
    StoredClaim { hash, until: now.plus(claim.window), fingerprint: claim.fingerprint, rearms: claim.rearms }
}
