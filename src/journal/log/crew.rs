//! Who does the journal's work: threads of its own, or tasks on the runtime of whoever opens it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::claims::OPEN_MAX;
use super::open::OpenError;
use super::reader::{Job as Look, Reader};
use super::writer::{Command, Writer};
use super::{Gauges, LogJournal, QUEUE};
use crate::base::Tasks;
use crate::journal::Room;

/// How a journal works, beside its settings: what the program leaves as it is, and a simulation does not.
#[derive(Clone, Debug)]
pub struct Workplace {
    /// Who does the work.
    pub crew: Crew,
    /// Claims in memory before they are written to a run.
    pub claims_in_memory: usize,
}

impl Default for Workplace {
    fn default() -> Self {
        // Few in tests, so that whatever claims anything also seals and merges.
        Self { crew: Crew::Threads, claims_in_memory: if cfg!(test) { 1 << 8 } else { OPEN_MAX } }
    }
}

/// Who does the work.
#[derive(Clone, Debug)]
pub enum Crew {
    /// Threads of the journal's own: one that writes, one that reads, and some that write claims now and then.
    Threads,
    /// Tasks on the runtime on which it is opened, which has one thread. They block it while the disk works, so all that
    /// ever happens at the same time happens in an order that the runtime chooses, always alike.
    Tasks(Tasks),
}

impl Crew {
    /// Has the writer run until it is told to close.
    pub(super) fn write(&self, writer: Writer) -> Result<mpsc::Sender<Command>, OpenError> {
        let (sender, commands) = mpsc::channel(QUEUE);
        let ends = Ends(Arc::clone(&writer.gauges));
        let work = async move {
            let _ends = ends;
            writer.run(commands).await;
        };
        match self {
            Self::Tasks(tasks) => tasks.spawn("journal-write", work),
            Self::Threads => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let runtime = runtime
                    .map_err(|error| OpenError::Io { what: "cannot start the journal's thread".into(), error })?;
                thread("journal-write", move || runtime.block_on(work)).map_err(no_thread("journal-write"))?;
            }
        }
        Ok(sender)
    }

    /// Has the reader look for whatever is asked for.
    pub(super) fn read(&self, mut reader: Reader, gauges: Arc<Gauges>) -> Result<mpsc::Sender<Look>, OpenError> {
        let (sender, mut looks) = mpsc::channel::<Look>(QUEUE);
        let ends = Ends(gauges);
        match self {
            Self::Tasks(tasks) => tasks.spawn("journal-read", async move {
                let _ends = ends;
                while let Some(look) = looks.recv().await {
                    look(&mut reader);
                }
            }),
            Self::Threads => {
                let body = move || {
                    let _ends = ends;
                    while let Some(look) = looks.blocking_recv() {
                        look(&mut reader);
                    }
                };
                thread("journal-read", body).map_err(no_thread("journal-read"))?;
            }
        }
        Ok(sender)
    }

    /// Begins a piece of work beside the writer's.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Job<T>> {
        match self {
            Self::Threads => thread(name, work).map(Job::Thread),
            Self::Tasks(tasks) => {
                let step = Arc::new(Mutex::new(Step::Waits(Box::new(work))));
                let later = Arc::clone(&step);
                tasks.spawn(name, async move { do_it(&later) });
                Ok(Job::Task(step))
            }
        }
    }

    /// Drops on a thread of its own what takes a while to: the last handle of a removed file frees its blocks.
    pub(super) fn clear_away(&self, what: impl Send + 'static) {
        if matches!(self, Self::Threads) {
            let _ = thread("journal-drop", move || drop(what)); // else it is dropped here
        }
    }
}

impl LogJournal {
    /// Whether its writer and its reader are at work. They end when it is closed; else only by a panic.
    #[must_use]
    pub fn is_manned(&self) -> bool {
        !self.shared.writer.is_closed() && !self.shared.reader.is_closed()
    }

    /// Has the reader panic.
    #[cfg(test)]
    pub async fn panic_reader(&self) {
        let ended = self.read(|_| -> Result<(), _> { panic!("on purpose") }).await;
        assert!(ended.is_err());
    }

    /// Has the writer panic.
    #[cfg(test)]
    pub async fn panic_writer(&self) {
        let (reply, ended) = tokio::sync::oneshot::channel();
        assert!(self.shared.writer.send(Command::Panic { reply }).await.is_ok());
        assert!(ended.await.is_err());
    }
}

/// A journal one of whose threads has panicked must not look alive.
struct Ends(Arc<Gauges>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.set_room(Room::Failed(Arc::from("the journal's thread has ended")));
    }
}

/// Work that was begun.
pub(super) enum Job<T> {
    Thread(JoinHandle<T>),
    Task(Arc<Mutex<Step<T>>>),
}

pub(super) enum Step<T> {
    Waits(Box<dyn FnOnce() -> T + Send>),
    Done(T),
    /// Its end was asked for, or it panicked.
    Over,
}

impl<T> Job<T> {
    /// Whether [`Job::join`] would not wait.
    pub(super) fn is_finished(&self) -> bool {
        match self {
            Self::Thread(thread) => thread.is_finished(),
            Self::Task(step) => !matches!(*step.lock().unwrap_or_else(PoisonError::into_inner), Step::Waits(_)),
        }
    }

    /// Waits until it is done. None if it panicked.
    pub(super) fn join(self) -> Option<T> {
        match self {
            Self::Thread(thread) => thread.join().ok(),
            Self::Task(step) => {
                do_it(&step); // on one thread, waiting is doing
                match std::mem::replace(&mut *step.lock().unwrap_or_else(PoisonError::into_inner), Step::Over) {
                    Step::Done(what) => Some(what),
                    Step::Waits(_) | Step::Over => None,
                }
            }
        }
    }
}

fn do_it<T>(step: &Mutex<Step<T>>) {
    let mut step = step.lock().unwrap_or_else(PoisonError::into_inner);
    match std::mem::replace(&mut *step, Step::Over) {
        Step::Waits(work) => *step = Step::Done(work()),
        other => *step = other,
    }
}

/// Begins `body` on a thread of its own.
pub(super) fn thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

fn no_thread(name: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |error| OpenError::Io { what: format!("cannot start the thread {name}"), error }
}
