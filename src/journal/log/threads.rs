//! The journal's two threads: one writes, one reads.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::open::OpenError;
use super::reader::Reader;
use super::writer::{Command, Writer};
use super::{Gauges, Job, QUEUE};
use crate::journal::Room;

/// Starts the thread that writes.
pub fn spawn_writer(writer: Writer) -> Result<mpsc::Sender<Command>, OpenError> {
    let (sender, commands) = mpsc::channel(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| OpenError::Io { what: "cannot start the journal's thread".into(), error })?;
    let gauges = Arc::clone(&writer.gauges);
    spawn("journal-write", move || {
        /// A writer that panicked must not look alive.
        struct Ends(Arc<Gauges>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.set_room(Room::Failed(Arc::from("the journal's thread has ended")));
            }
        }
        let _ends = Ends(gauges);
        runtime.block_on(writer.run(commands));
    })?;
    Ok(sender)
}

/// Starts the thread that reads.
pub fn spawn_reader(mut reader: Reader) -> Result<mpsc::Sender<Job>, OpenError> {
    let (sender, mut jobs) = mpsc::channel::<Job>(QUEUE);
    spawn("journal-read", move || {
        while let Some(job) = jobs.blocking_recv() {
            job(&mut reader);
        }
    })?;
    Ok(sender)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| OpenError::Io { what: format!("cannot start the thread {name}"), error })
}
