//! The MANIFEST (records first).
use super::segment::SealedSegment;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestRecord {
    /// A segment is sealed: footer, tree files and index of it are durable.
    Sealed(Box<SealedSegment>),
}
