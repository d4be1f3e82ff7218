//! Which keys seal and open: said when the journal is opened, and changed while it is open.
//!
//! All that is sealed in one segment is sealed with one key, which its header names. So whether a key is still needed is read off
//! the headers; when another key is to seal, a new segment is begun.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::LogJournal;
use super::commit::{Batch, Broken};
use super::parts::Payload;
use super::record::{KIND_EVENT, Record};
use super::segment::{HEADER_BYTES, RawRecord};
use super::state::State;
use super::stored::encode_event;
use super::writer::{Command, Writer};
use crate::journal::seal::{Encryption, KeyId, Keyring, Sealer};
use crate::journal::{JournalError, KeyUse};

impl LogJournal {
    /// What is sealed, and needs a key that `encryption` does not have; nothing if all can be opened.
    #[must_use]
    pub fn locked_to(&self, encryption: &Encryption) -> Vec<KeyUse> {
        let uses = self.state().key_use();
        uses.into_iter().filter(|of| !encryption.has(of.key)).collect()
    }

    /// Seals and opens with these keys from now on. See to it that nothing is [`LogJournal::locked_to`] them.
    ///
    /// # Errors
    /// [`JournalError`] if no new segment could be begun; it is tried again, and what is written until then is sealed as before.
    pub async fn set_encryption(&self, encryption: &Encryption) -> Result<(), JournalError> {
        let keys = Arc::new(Keyring::new(encryption, self.shared.store));
        self.write(|reply: oneshot::Sender<_>| Command::SetKeys { keys, reply }, || JournalError::Closed).await
    }

    /// The keys, as they change.
    #[must_use]
    pub fn keys(&self) -> Arc<ArcSwap<Keyring>> {
        Arc::clone(&self.shared.keys)
    }
}

impl State {
    /// Which keys open what there is, by their ids.
    pub fn key_use(&self) -> Vec<KeyUse> {
        let sealed = self.segments.values().filter(|segment| segment.end > HEADER_BYTES);
        KeyUse::sum(sealed.filter_map(|segment| Some((segment.sealed_by?, segment.end.into()))))
    }
}

impl Writer {
    /// Seals and opens with `keys` from now on.
    pub fn change_keys(&mut self, keys: Arc<Keyring>) -> Result<(), Broken> {
        self.keys.store(keys);
        self.follow_keys()
    }

    /// Begins a segment for the key that is to seal, where it is another than that of the present one.
    pub fn follow_keys(&mut self) -> Result<(), Broken> {
        let wanted = self.keys.load().sealing().cloned();
        if id(wanted.as_ref()) == id(self.active.sealer.as_ref()) {
            return Ok(());
        }
        if !self.flush() {
            return Err(self.broken());
        }
        let (before, was_empty) = (self.active.number, self.active.length <= HEADER_BYTES);
        self.begin_segment(before + 1, wanted)?;
        if was_empty { self.let_go_of_empty(before) } else { self.tend_claims() }
    }

    /// Turns an event's payload that `sealer` sealed into what belongs in the present segment: the key has changed since.
    pub fn sealed_for_here(&mut self, payload: Payload, sealer: Option<Arc<Sealer>>) -> Result<Payload, Broken> {
        if id(sealer.as_ref()) == id(self.active.sealer.as_ref()) {
            return Ok(payload);
        }
        let Payload { form, bytes } = payload;
        let raw = RawRecord { offset: 0, end: 0, kind: KIND_EVENT, form, entry: 0, payload: bytes.into() };
        let sealed = match Record::decode(&raw, &Keyring::only(sealer)) {
            Ok(Record::Event(record)) => encode_event(&record, self.active.sealer.as_deref()).ok(),
            Ok(_) | Err(_) => None,
        };
        sealed.ok_or_else(|| self.fail("an event could not be sealed with the new key"))
    }

    /// A record's kind and payload, as it belongs in the present segment.
    pub fn encode(&mut self, record: &Record) -> Result<(u8, Payload), Broken> {
        record.encode(self.active.sealer.as_deref()).map_err(|error| self.fail(&error.to_string()))
    }

    fn let_go_of_empty(&mut self, number: u32) -> Result<(), Broken> {
        let mut batch = Batch::default();
        self.add(&Record::Trimmed { segment: number }, &mut batch)?;
        batch.must_be_durable();
        self.commit(&mut batch)?;
        self.remove_segment(number, HEADER_BYTES)
    }
}

fn id(sealer: Option<&Arc<Sealer>>) -> Option<KeyId> {
    sealer.map(|sealer| sealer.id())
}
