//! Where an event stands, derived from its deliveries.

use std::fmt;
use std::str::FromStr;

use crate::event::DeliveryStatus;

/// Where an event stands: the worst of its deliveries. In order, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventStatus {
    /// A delivery was given up.
    Dead,
    /// A delivery waits for an attempt.
    Pending,
    /// Every delivery was taken.
    Delivered,
    /// No route of its source matched.
    Unrouted,
    /// Its source sends nowhere: it is kept to be looked at.
    Captured,
    /// The application answered its sender with a 4xx, in proxy mode.
    RefusedByApp,
    /// An operator has erased it.
    Erased,
}

/// A text that is not an [`EventStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a status: they are dead, pending, delivered, unrouted, captured, refused_by_app, erased and orphaned")]
pub struct StatusError;

impl EventStatus {
    /// Every status, worst first.
    pub const ALL: [Self; 7] =
        [Self::Dead, Self::Pending, Self::Delivered, Self::Unrouted, Self::Captured, Self::RefusedByApp, Self::Erased];

    /// The status of an event with these deliveries.
    ///
    /// Routes have no conditions yet, so an event without deliveries is one of a source that sends nowhere.
    #[must_use]
    pub fn of(deliveries: impl IntoIterator<Item = DeliveryStatus>) -> Self {
        let each = deliveries.into_iter().map(|delivery| match delivery {
            DeliveryStatus::Dead => Self::Dead,
            DeliveryStatus::Pending | DeliveryStatus::Orphaned => Self::Pending,
            DeliveryStatus::Delivered => Self::Delivered,
            DeliveryStatus::Refused => Self::RefusedByApp,
            DeliveryStatus::Purged => Self::Erased,
        });
        each.min().unwrap_or(Self::Captured)
    }

    /// The word in the API and the index.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Unrouted => "unrouted",
            Self::Captured => "captured",
            Self::RefusedByApp => "refused_by_app",
            Self::Erased => "erased",
        }
    }
}

impl fmt::Display for EventStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventStatus {
    type Err = StatusError;

    fn from_str(text: &str) -> Result<Self, StatusError> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(StatusError)
    }
}

/// Which events a list is asked for by how they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Those that stand so.
    Event(EventStatus),
    /// Those with an orphaned delivery, whatever else they have.
    Orphaned,
}

impl FromStr for Standing {
    type Err = StatusError;

    fn from_str(text: &str) -> Result<Self, StatusError> {
        if text == DeliveryStatus::Orphaned.as_str() { Ok(Self::Orphaned) } else { text.parse().map(Self::Event) }
    }
}

/// The delivery status that prints as `text`.
pub(super) fn delivery_status(text: &str) -> Option<DeliveryStatus> {
    DeliveryStatus::ALL.into_iter().find(|status| status.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeliveryStatus::{Dead, Delivered, Orphaned, Pending};

    #[test]
    fn an_event_is_as_well_as_its_worst_delivery() {
        let cases: [(&[DeliveryStatus], EventStatus); 10] = [
            (&[], EventStatus::Captured),
            (&[Pending], EventStatus::Pending),
            (&[Delivered], EventStatus::Delivered),
            (&[Dead], EventStatus::Dead),
            (&[Delivered, Delivered], EventStatus::Delivered),
            (&[Delivered, Pending], EventStatus::Pending),
            (&[Pending, Dead], EventStatus::Dead),
            (&[Delivered, Dead, Pending], EventStatus::Dead),
            (&[Delivered, Orphaned], EventStatus::Pending),
            (&[Orphaned, Dead], EventStatus::Dead),
        ];
        for (deliveries, expected) in cases {
            assert_eq!(EventStatus::of(deliveries.iter().copied()), expected, "{deliveries:?}");
        }
    }

    #[test]
    fn statuses_read_back_what_they_print() {
        for status in EventStatus::ALL {
            assert_eq!(status.to_string().parse(), Ok(status));
        }
        assert_eq!("Dead".parse::<EventStatus>(), Err(StatusError));
        assert_eq!("orphaned".parse::<EventStatus>(), Err(StatusError), "that is a delivery's");
        assert_eq!("orphaned".parse(), Ok(Standing::Orphaned));
        assert_eq!("dead".parse(), Ok(Standing::Event(EventStatus::Dead)));
    }
}
