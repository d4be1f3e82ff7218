//! The words that label metrics: closed sets, so that no sender can make a new series.

/// A closed set of label values.
pub trait Word: Copy + 'static {
    /// All of them, in the order of their [`Word::place`].
    const ALL: &'static [Self];

    /// The text in metrics and logs.
    fn as_str(self) -> &'static str;

    /// Where it stands among [`Word::ALL`].
    fn place(self) -> usize;
}

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $word,)+
        }

        impl Word for $name {
            const ALL: &'static [Self] = &[$(Self::$word),+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)+
                }
            }

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

words! {
    /// What came of a request.
    RequestOutcome {
        /// The event was kept.
        Stored = "stored",
        /// It was an event that is kept already.
        Duplicate = "duplicate",
        /// The application answered it.
        Relayed = "relayed",
        /// The application answered it with a 4xx.
        RefusedByApp = "refused_by_app",
        /// The application could not answer it; it was kept for later.
        Buffered = "buffered",
        /// It was a handshake, and was answered.
        Handshake = "handshake",
        /// The request was turned away; `refusals_total` says why.
        Refused = "refused",
    }
}

words! {
    /// In what way a request was a duplicate.
    DuplicateKind {
        /// Same key, same body.
        Same = "same",
        /// Same key, another body: the first one stays.
        Conflict = "conflict",
        /// Same signed bytes under another unsigned id: kept as a new event.
        SameBody = "same_body",
    }
}

words! {
    /// Whether a request was genuine.
    VerificationOutcome {
        /// It was.
        Verified = "verified",
        /// It was not, or nothing shows that it was.
        Rejected = "rejected",
    }
}

words! {
    /// Why a request was turned away.
    Reason {
        /// Ambiguous or broken HTTP.
        Malformed = "malformed",
        /// The connection had no good PROXY header where one is required.
        ProxyHeader = "proxy_header",
        /// No source has the path.
        NoRoute = "no_route",
        /// The source does not take the method.
        Method = "method",
        /// The journal has no room or has failed.
        NoRoom = "no_room",
        /// The client's address is not allowed.
        Client = "client",
        /// The client is over its limit.
        TooFast = "too_fast",
        /// Too many bytes of bodies in flight.
        Busy = "busy",
        /// The body is too large.
        TooLarge = "too_large",
        /// The body came too slowly.
        TooSlow = "too_slow",
        /// The body ended early.
        Broken = "broken",
        /// The body is encoded.
        Encoded = "encoded",
        /// Not genuine.
        Unverified = "unverified",
        /// The source's quota is spent.
        OverQuota = "over_quota",
        /// The journal did not keep it.
        NotKept = "not_kept",
        /// The same event is under way.
        UnderWay = "under_way",
        /// The deadline was over.
        Late = "late",
    }
}

words! {
    /// Which limit a request was over.
    LimitedPer {
        /// The client's.
        ClientIp = "client_ip",
        /// The source's.
        Source = "source",
        /// That of requests with the same value of a header.
        Header = "header",
        /// The client's, for requests that fail verification.
        Unverified = "unverified",
    }
}

words! {
    /// Why the public side ended a connection by itself.
    CutOff {
        /// Its client has as many as one may have.
        PerClient = "per_client",
        /// All places were taken, and it had been silent longest.
        Crowded = "crowded",
        /// Its TLS handshake took too long.
        Handshake = "handshake",
        /// A request's head took too long.
        Head = "head",
        /// No request came.
        Idle = "idle",
        /// Its peer did not read.
        Unread = "unread",
        /// HTTP/2 frames without requests, too many of them.
        Frames = "frames",
    }
}

words! {
    /// What came of an attempt to deliver.
    DeliveryOutcome {
        /// The application took it.
        Delivered = "delivered",
        /// It failed and will be tried again.
        Retry = "retry",
        /// It was given up.
        Dead = "dead",
        /// The application answered its sender with a 4xx.
        Refused = "refused",
    }
}

words! {
    /// What came of a reload.
    ReloadOutcome {
        /// The new config runs.
        Applied = "applied",
        /// The new config is wrong; the old one runs.
        Rejected = "rejected",
    }
}
