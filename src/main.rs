//! The `forebay` command.

use std::process::ExitCode;

/// Gives back what it has no use for. After ten thousand connections have come and gone, glibc's keeps nearly all of
/// their memory, and bodies then come on top: in 128 MiB, `tests/memory.sh` ends in a kill with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    forebay::cli::main()
}
