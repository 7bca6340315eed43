//! The checks that weak verifiers leave out, one each. Every one of these was or could be somebody's
//! bug; the `control_…` tests demand that the forger deceives a verifier that has it.

macro_rules! flaws {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $flaw:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $flaw,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$flaw,)*];
        }
    };
}

flaws! {
    /// Of inclusion proofs.
    InclusionFlaw {
        /// Hashes after the last one needed are ignored.
        LeftoverIgnored,
        /// The index may be beyond the tree.
        IndexBeyondTree,
        /// The proof may end below the top.
        NotToTheTop,
        /// Nothing is checked for a tree without leaves.
        EmptyTree,
        /// Siblings may stand on either side, whatever the index says.
        AnySide,
        /// Leaves and interior nodes are hashed alike.
        NodeAsLeaf,
        /// The leaf is not part of what is hashed.
        LeafUnbound,
    }
}

flaws! {
    /// Of consistency proofs.
    ConsistencyFlaw {
        /// The root of an older tree without leaves is not looked at.
        EmptyUnchecked,
        /// Hashes that follow where none is needed are ignored.
        EmptyLeftover,
        /// Roots of equal sizes are not compared.
        EqualUnchecked,
        /// A newer tree may be smaller.
        OrderUnchecked,
        /// Only the newer root is computed.
        OldRootUnchecked,
        /// Only the older root is computed.
        NewRootUnchecked,
        /// Hashes after the last one needed are ignored.
        LeftoverIgnored,
        /// A proof without hashes has nothing wrong in it.
        NothingToShow,
    }
}

flaws! {
    /// Of tiles and entry bundles.
    TileFlaw {
        /// Bytes after the last entry are ignored.
        TrailingIgnored,
        /// A bundle may end before its last entry.
        ShortBundle,
        /// Paths may have leading groups of zeros, or the width of a full tile.
        LoosePath,
        /// A tile file may be longer than its tile.
        LongTile,
        /// A full tile is not compared with the hash above it.
        UnboundTile,
        /// The width in the path need not be that of the tree.
        AnyWidth,
        /// Lengths of entries are not part of what is checked.
        Boundaries,
    }
}

flaws! {
    /// Of notes, keys, checkpoints, policies and receipts.
    TextFlaw {
        /// Base64 may have other bits in its last digit.
        LooseBase64,
        /// Spaces and carriage returns at the ends of lines are dropped.
        TrimmedLines,
        /// Any dash will do in front of a signature.
        AnyDash,
        /// Only the first signature of a key is looked at.
        FirstSignatureOnly,
        /// A known key's signature that does not fit is skipped.
        BadSignatureSkipped,
        /// Signatures are found by key id, whatever the name.
        NameIgnored,
        /// Whoever has the key's name and id may sign.
        IdIsEnough,
        /// The second half of a signature may be any number that is the same modulo the group order.
        MalleableSignature,
        /// The time of a cosignature is not part of what is signed.
        TimeUnbound,
        /// A plain signature passes for a cosignature.
        TypeConfused,
        /// Extension lines are not part of what is signed.
        ExtensionsUnbound,
        /// The text may be split from its signatures at the first empty line.
        FirstEmptyLine,
        /// The key may be for another ledger.
        OriginUnchecked,
        /// Numbers may have leading zeros.
        LeadingZeros,
        /// A key is not compared with its key id.
        KeyIdUnchecked,
        /// Keys may be points for which everybody can sign.
        WeakKeys,
        /// Cosignatures are counted, not cosigners.
        CosignaturesCounted,
        /// A group may have a threshold of 0.
        ThresholdZero,
        /// A key may be two witnesses.
        DuplicateKeys,
        /// Two keys may have the same name and id.
        DuplicateKeyIds,
        /// A witness may be in a group twice.
        DuplicateMembers,
        /// The last quorum line counts.
        LastQuorum,
        /// A policy without quorum line asks for no cosignature.
        QuorumForgotten,
        /// Cosignatures of any quorum, but the ledger itself need not have signed.
        LogUnsigned,
        /// Bytes after the opening are ignored.
        ExtraTrailing,
        /// Hashes after the last one needed are ignored.
        ProofLeftover,
        /// The index is not part of what is proved.
        IndexUnbound,
        /// The size in the proof's own favour: what the number of hashes suggests.
        SizeGuessed,
        /// The value is compared without salt and metadata.
        OpeningUnbound,
        /// The value is believed.
        ValueUnchecked,
        /// A receipt without opening fits every value.
        RedactedFits,
        /// A leaf of a later format is shown as if it were understood.
        UnknownLeaf,
        /// Metadata may have a name twice.
        LooseMetadata,
        /// The checkpoint is believed without signature.
        SignatureUnchecked,
    }
}
