//! Sealing: what senders and applications wrote is encrypted at rest. Here alone is anything sealed or opened.
//!
//! A key is 32 bytes that the config names (`journal.encryption_key`). HKDF-SHA-256 makes two things of it: its id, 8 bytes that
//! are no secret, the same in every journal, so that what was sealed says with which key; and, salted with the journal's
//! id, the key that seals. A journal's key opens nothing of another one.
//!
//! The cipher is AES-256-GCM-SIV (RFC 8452) with a random nonce of 96 bits for each piece. A place in the log may be written
//! twice (a write that failed is taken back), a machine may be cloned and draw the same random bytes again: if a nonce repeats,
//! an observer learns whether the two pieces were equal, and nothing else.
//!
//! What is sealed is bound to what stands beside it in clear, as additional data: neither can be swapped for another's.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use crate::base::Secret;

/// Bytes that a key has.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = NONCE_LEN;
/// Bytes of the tag that stands behind what is sealed.
pub const TAG_BYTES: usize = 16;

/// Which key something was sealed with. No secret; prints as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key as it is configured.
#[derive(Clone, Debug)]
pub struct EncryptionKey {
    id: KeyId,
    secret: Secret,
}

impl EncryptionKey {
    /// The key with these bytes; none if it were not [`KEY_BYTES`] of them.
    #[must_use]
    pub fn new(secret: Secret) -> Option<Self> {
        let mut id = [0; 8];
        if secret.len() != KEY_BYTES {
            return None;
        }
        derive(&secret, &[], b"forebay key id 1", &mut id)?;
        Some(Self { id: KeyId(id), secret })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether `other` has the same bytes.
    #[must_use]
    pub fn matches(&self, other: &[u8]) -> bool {
        self.secret.matches(other)
    }
}

/// `journal.encryption_key`: what seals from now on, and what opens. Equal if the keys are, and their order.
#[derive(Clone, Debug, Default)]
pub struct Encryption {
    /// The keys that open.
    pub keys: Vec<EncryptionKey>,
    /// Whether the first of them seals; otherwise nothing is sealed any more.
    pub seals: bool,
}

impl Encryption {
    /// The key that seals.
    #[must_use]
    pub fn sealing(&self) -> Option<&EncryptionKey> {
        self.keys.first().filter(|_| self.seals)
    }

    /// Whether there is a key with this id.
    #[must_use]
    pub fn has(&self, id: KeyId) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }
}

impl PartialEq for Encryption {
    fn eq(&self, other: &Self) -> bool {
        self.seals == other.seals && self.keys.iter().map(|key| key.id).eq(other.keys.iter().map(|key| key.id))
    }
}

/// The keys of one journal, ready for use.
#[derive(Debug, Default)]
pub struct Keyring {
    sealing: Option<Arc<Sealer>>,
    all: Vec<Arc<Sealer>>,
}

impl Keyring {
    /// Those of `encryption` for the journal `store`.
    #[must_use]
    pub fn new(encryption: &Encryption, store: [u8; 16]) -> Self {
        let all: Vec<_> = encryption.keys.iter().filter_map(|key| Sealer::new(key, store)).map(Arc::new).collect();
        let sealing = encryption.sealing().and_then(|key| all.iter().find(|sealer| sealer.id == key.id).cloned());
        Self { sealing, all }
    }

    /// One that opens what `sealer` sealed, and no more.
    #[must_use]
    pub fn only(sealer: Option<Arc<Sealer>>) -> Self {
        Self { all: sealer.clone().into_iter().collect(), sealing: sealer }
    }

    /// What seals; none if nothing is to be sealed.
    #[must_use]
    pub fn sealing(&self) -> Option<&Arc<Sealer>> {
        self.sealing.as_ref()
    }

    /// The key with this id.
    #[must_use]
    pub fn find(&self, id: KeyId) -> Option<&Arc<Sealer>> {
        self.all.iter().find(|sealer| sealer.id == id)
    }
}

/// It cannot be sealed: there is no randomness for a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be sealed: the system gives no randomness")]
pub struct CannotSeal;

/// It was not sealed with this key and this additional data, or not since changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is sealed was changed, or stands in a place that is not its own")]
pub struct Altered;

/// One key of one journal.
pub struct Sealer {
    id: KeyId,
    key: RandomizedNonceKey,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealer").field(&self.id).finish()
    }
}

impl Sealer {
    fn new(key: &EncryptionKey, store: [u8; 16]) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        derive(&key.secret, &store, b"forebay journal 1", &mut *bytes)?;
        Some(Self { id: key.id, key: RandomizedNonceKey::new(&AES_256_GCM_SIV, &*bytes).ok()? })
    }

    /// Which key it is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Seals `bytes` where they are, bound to `beside`. Gives what is needed to open them again.
    ///
    /// # Errors
    /// [`CannotSeal`]; `bytes` are then of no use.
    pub fn seal(&self, beside: &[u8], bytes: &mut [u8]) -> Result<([u8; NONCE_BYTES], [u8; TAG_BYTES]), CannotSeal> {
        let sealed = self.key.seal_in_place_separate_tag(Aad::from(beside), bytes).map_err(|_| CannotSeal)?;
        let (nonce, tag) = sealed;
        Ok((*nonce.as_ref(), tag.as_ref().try_into().map_err(|_| CannotSeal)?))
    }

    /// Opens `bytes`, their tag last, where they are.
    ///
    /// # Errors
    /// [`Altered`]; `bytes` are then of no use.
    pub fn open<'b>(
        &self,
        beside: &[u8],
        nonce: [u8; NONCE_BYTES],
        bytes: &'b mut [u8],
    ) -> Result<&'b mut [u8], Altered> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place(nonce, Aad::from(beside), bytes).map_err(|_| Altered)
    }
}

/// Fills `out` from `secret`. None only if `out` were longer than 8,160 bytes.
fn derive(secret: &Secret, salt: &[u8], info: &[u8], out: &mut [u8]) -> Option<()> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let info = [info];
    let key = Salt::new(HKDF_SHA256, salt).extract(secret.expose());
    key.expand(&info, Length(out.len())).ok()?.fill(out).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Keys, each of one byte all over; the first seals.
    pub(crate) fn keys(bytes: &[u8]) -> Encryption {
        let key = |byte: &u8| EncryptionKey::new(Secret::new([*byte; KEY_BYTES])).unwrap();
        Encryption { keys: bytes.iter().map(key).collect(), seals: true }
    }

    fn sealer(byte: u8, store: u8) -> Arc<Sealer> {
        Arc::clone(Keyring::new(&keys(&[byte]), [store; 16]).sealing().unwrap())
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_beside_its_own_and_not_otherwise() {
        let ours = sealer(1, 1);
        let mut bytes = b"an event's body".to_vec();
        let (nonce, tag) = ours.seal(b"beside", &mut bytes).unwrap();
        assert_ne!(bytes, b"an event's body");
        bytes.extend(tag);
        assert_eq!(ours.open(b"beside", nonce, &mut bytes.clone()).unwrap(), b"an event's body");
        assert_eq!(ours.open(b"besides", nonce, &mut bytes.clone()), Err(Altered));
        assert_eq!(sealer(2, 1).open(b"beside", nonce, &mut bytes.clone()), Err(Altered), "another key");
        assert_eq!(sealer(1, 2).open(b"beside", nonce, &mut bytes.clone()), Err(Altered), "another journal");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(ours.open(b"beside", nonce, &mut flipped), Err(Altered), "byte {at}");
        }
    }

    #[test]
    fn no_two_seals_have_the_same_nonce() {
        let ours = sealer(1, 1);
        let nonces: std::collections::BTreeSet<_> = (0..1000).map(|_| ours.seal(b"", &mut [0; 8]).unwrap().0).collect();
        assert_eq!(nonces.len(), 1000);
    }

    /// Ids stand in journals: a change of how they are made would lock everybody out.
    #[test]
    fn the_id_of_a_key_never_changes() {
        let ids: Vec<_> = keys(&[1, 2]).keys.iter().map(|key| key.id().to_string()).collect();
        assert_eq!(ids, ["0a64f5ba7dfb7441", "c784b6c4521b0012"]); // as another implementation of RFC 5869 has it
    }

    #[test]
    fn nothing_of_a_key_is_printed() {
        let printed = format!("{:?} {:?}", keys(b"k"), Keyring::new(&keys(b"k"), [0; 16]));
        assert!(!printed.contains("kk") && !printed.contains("107, 107") && printed.contains("***"), "{printed}");
    }
}
