//! Waiting out a full disk.

use std::time::Duration;

use super::JournalError;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Records an outcome, and waits while the disk is full: what the application has taken must not be forgotten.
///
/// # Errors
/// What `record` says, but [`JournalError::Full`].
pub async fn once_there_is_room<F>(record: impl Fn() -> F) -> Result<(), JournalError>
where
    F: Future<Output = Result<(), JournalError>>,
{
    loop {
        match record().await {
            Err(JournalError::Full) => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
}
