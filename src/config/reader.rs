//! The files of a config as they are being read, and the problems that turn up.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{open_at_once, open_regular};

use super::expand::Env;
use super::problems::{Problem, Severity};
use super::tree::{self, FileId, Node, Place};

pub use super::field::{Field, Map, Text};

/// What is done about a variable that is not set or a `{ file: … }` that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// It is an error.
    Needed,
    /// Its key reads as if it were absent, and nothing is said: for a command that brings its own secret.
    Spared,
}

/// The files of one config, as they are being read.
pub struct Reader<'r> {
    env: &'r Env<'r>,
    outside: Outside,
    files: RefCell<Vec<File>>,
    problems: RefCell<Vec<Problem>>,
    touched: RefCell<Vec<PathBuf>>,
}

/// One of them.
struct File {
    /// What messages call it.
    name: Arc<str>,
    /// What relative paths in it are relative to.
    dir: PathBuf,
}

impl<'r> Reader<'r> {
    /// Without any file yet.
    pub fn new(env: &'r Env<'r>) -> Self {
        Self {
            env,
            outside: Outside::Needed,
            files: RefCell::default(),
            problems: RefCell::default(),
            touched: RefCell::default(),
        }
    }

    /// The same, with this done about what is not there.
    pub fn with(self, outside: Outside) -> Self {
        Self { outside, ..self }
    }

    /// What is done about what is not there.
    pub fn outside(&self) -> Outside {
        self.outside
    }

    /// The tree of the config at `path`; none, and a problem, where there is none.
    pub fn open(&self, path: &Path) -> Option<Node> {
        let file = self.file(&path.display().to_string(), path.parent().unwrap_or(Path::new("")));
        self.touch(path);
        // It may come through a pipe, as from a shell's `<(…)`.
        let text = open_at_once(path).map_err(unreadable).and_then(|file| text(file, tree::FILE_BYTES_MAX));
        match text {
            Ok(text) => self.tree(file, &text),
            Err(why) => {
                let cure = if why.place == Place::default() { "" } else { "; save it as UTF-8" };
                let message = format!("the config cannot be read: {}{cure}", why.message);
                self.add(Severity::Error, (file, why.place), "", message);
                None
            }
        }
    }

    /// A further file, called `name` in messages; `dir` is what relative paths in it are relative to.
    pub fn file(&self, name: &str, dir: &Path) -> FileId {
        let mut files = self.files.borrow_mut();
        files.push(File { name: Arc::from(name), dir: dir.to_owned() });
        FileId(files.len() - 1)
    }

    /// The tree of `text`, which is that of `file`; none where it is not one. Its syntax errors become problems.
    pub fn tree(&self, file: FileId, text: &str) -> Option<Node> {
        let (tree, errors) = tree::parse(file, text);
        for error in errors {
            self.add(Severity::Error, (file, error.place), "", error.message);
        }
        tree
    }

    /// The root of `node`, whose keys stand in the table under `schema`.
    pub fn root<'t>(&'t self, node: &'t Node, schema: &'static str) -> Field<'t> {
        Field::root(self, node, schema)
    }

    /// What was found so far.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// What was found so far, and every file and directory that was looked at, there or not, by name.
    pub fn finish(self) -> (Vec<Problem>, Vec<PathBuf>) {
        let mut touched = self.touched.into_inner();
        touched.sort();
        touched.dedup();
        (self.problems.into_inner(), touched)
    }

    /// Takes the problems of something else in.
    pub fn absorb(&self, problems: Vec<Problem>) {
        self.problems.borrow_mut().extend(problems);
    }

    /// How the environment is asked.
    pub fn env(&self) -> &'r Env<'r> {
        self.env
    }

    /// `path` as seen from the directory of `file`.
    pub fn beside(&self, file: FileId, path: &Path) -> PathBuf {
        self.files.borrow().get(file.0).map_or_else(|| path.to_owned(), |file| file.dir.join(path))
    }

    /// Remembers that what stands at `path` is part of the config.
    pub fn touch(&self, path: &Path) {
        self.touched.borrow_mut().push(path.to_owned());
    }

    /// The text of the file at `path`, which is part of the config from now on.
    pub fn read(&self, path: &Path, limit_bytes: u64) -> Result<String, Unreadable> {
        self.touch(path);
        text(open_regular(path).map_err(unreadable)?, limit_bytes)
    }

    /// As [`Reader::read`], for what need not be text.
    pub fn read_bytes(&self, path: &Path, limit_bytes: u64) -> Result<Vec<u8>, Unreadable> {
        self.touch(path);
        read_bytes(path, limit_bytes)
    }

    /// What messages call `file`.
    pub fn name_of(&self, file: FileId) -> Arc<str> {
        self.files.borrow().get(file.0).map_or_else(|| Arc::from(""), |file| Arc::clone(&file.name))
    }

    /// Reports what is wrong at a place in a file.
    pub fn add(&self, severity: Severity, (file, place): (FileId, Place), path: &str, message: String) {
        let file = self.name_of(file);
        self.problems.borrow_mut().push(Problem { severity, file, place, path: path.to_owned(), message });
    }
}

/// Why there is no text in a file, in words; and where, if what is there is not text.
#[derive(Debug)]
pub struct Unreadable {
    /// In words.
    pub message: String,
    /// The first byte that is not text.
    pub place: Place,
}

impl Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// The bytes of a regular file of at most `limit_bytes`.
pub fn read_bytes(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, Unreadable> {
    bytes(open_regular(path).map_err(unreadable)?, limit_bytes)
}

fn unreadable(error: std::io::Error) -> Unreadable {
    Unreadable { message: plain(&error), place: Place::default() }
}

fn bytes(file: std::fs::File, limit_bytes: u64) -> Result<Vec<u8>, Unreadable> {
    use std::io::Read;
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit_bytes {
        let message = format!("it is larger than {}", crate::base::ByteSize(limit_bytes));
        return Err(Unreadable { message, place: Place::default() });
    }
    Ok(bytes)
}

fn text(file: std::fs::File, limit_bytes: u64) -> Result<String, Unreadable> {
    String::from_utf8(bytes(file, limit_bytes)?).map_err(|error| {
        let text = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let (above, line) = text.rsplit_once('\n').unwrap_or(("", &text));
        let above = if text.contains('\n') { above.split('\n').count() } else { 0 };
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let place = Place { line: narrow(above + 1), column: narrow(line.chars().count() + 1) };
        Unreadable { message: "it is not UTF-8 text".to_owned(), place }
    })
}

/// An I/O error without its number.
pub fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "we may not read it".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}
