//! Bugs put in on purpose, to see whether the tests of the whole find them: feature `planted-bugs`, never in a release.
//!
//! One build has all of them; the environment variable `SCRIBE_PLANTED` names the one that is awake. Each stands where a
//! mistake would, in a line or two with the comment `planted`.

/// The names there are, each with what it breaks.
pub const BUGS: [(&str, &str); 24] = [
    ("vote-not-synced", "a vote is given before it is on disk"),
    (
        "ack-before-sync",
        "entries are acknowledged before they are on disk",
    ),
    (
        "directory-not-synced",
        "the name of a new segment is not made durable",
    ),
    (
        "sync-error-retried",
        "a sync that failed is tried again, and believed",
    ),
    (
        "cut-at-first-bad-checksum",
        "damage in the log is taken for a torn tail and cut",
    ),
    (
        "read-without-barrier",
        "a node that thinks it leads reads without asking the others",
    ),
    (
        "ack-before-majority",
        "a follower that is not reached counts as one that has the entries",
    ),
    (
        "signed-before-durable",
        "a head is signed before its entries are on the signer's disk",
    ),
    (
        "manifest-before-data",
        "a segment counts as sealed before its footer and tree are on disk",
    ),
    (
        "idempotency-lost-on-restart",
        "sealed writes are not remembered after a restart",
    ),
    (
        "timestamp-goes-back",
        "the leader's clock is believed when it goes back",
    ),
    (
        "void-frame-applied",
        "a frame counts that another term had fixed",
    ),
    (
        "flip-before-hash",
        "a bit of a value changes before it is committed to",
    ),
    (
        "watch-skips",
        "a reader who resumes at the end of the sealed segments misses an entry",
    ),
    (
        "idempotency-overlay-ignored",
        "a retry is not compared with what is still on its way",
    ),
    (
        "condition-overlay-ignored",
        "a condition is not compared with what is still on its way",
    ),
    (
        "follower-reads-early",
        "a follower does not wait for what the leader named",
    ),
    (
        "manifest-not-synced",
        "a record of the manifest is not synced",
    ),
    (
        "unknown-tried-again",
        "an unknown outcome is tried again without an idempotency key",
    ),
    (
        "unknown-called-refused",
        "an unknown outcome is called a refusal",
    ),
    (
        "cut-not-durable",
        "a cut of the log is acknowledged before it is on disk",
    ),
    (
        "outvoted-signs",
        "a head is signed that fewer than a majority agreed to",
    ),
    (
        "recovery-keeps-torn-group",
        "a torn tail is not cleared before it is written over",
    ),
    (
        "flushed-early",
        "consensus is told that entries are on disk when they are queued",
    ),
];

/// Whether this bug is awake.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn has(_bug: &str) -> bool {
    false
}

/// Whether this bug is awake.
#[cfg(feature = "planted-bugs")]
pub(crate) fn has(bug: &str) -> bool {
    static AWAKE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(BUGS.iter().any(|(name, _)| *name == bug), "{bug}");
    let awake = AWAKE.get_or_init(|| std::env::var("SCRIBE_PLANTED").ok());
    awake.as_deref() == Some(bug)
}
