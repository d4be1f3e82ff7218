//! What every other module may use: the clock, secrets, units, files and the task set.

mod chain;
mod clock;
mod files;
mod name;
mod secret;
mod tasks;
mod units;

pub use chain::Chain;
pub use clock::{Clock, ManualClock, SystemClock, UnixMillis, Uptime};
pub use files::{open_at_once, open_regular};
pub use name::{Name, NameError};
pub use secret::Secret;
pub use tasks::Tasks;
pub use units::{ByteSize, Rate, UnitError, format_duration, parse_duration};
