//! The judge: takes in what is observed, in order, and says at once when a promise was broken.

use std::collections::BTreeMap;

use scribe_proof::{Hash, LeafIndex, LeafKind, SignedCheckpoint, TreeSize};

use crate::book::{Action, Book, KeyId, WriteId};
use crate::checked::Checked;
use crate::entries::{Entries, Known, Source};
use crate::event::{
    Answer, Appended, ClientId, Consistency, Entry, Filter, Moment, NodeId, NodeState, OperationId,
    Outcome, Request, Version, WatchId,
};
use crate::floor::Floor;
use crate::heads::{Heads, Holder, Shown};
use crate::invariants::acknowledged::Acknowledged;
use crate::invariants::order::{Order, Transactions};
use crate::invariants::refused::Refused;
use crate::invariants::segments::Segments;
use crate::invariants::watch::Watches;
use crate::invariants::{
    Check, broken, bytes, checkpoints, conditions, linearizable, order, roots,
};
use crate::places::Versions;
use crate::violation::{Invariant, Violation};

/// Judges one run of a ledger: what its clients were told against what it has.
///
/// Every method takes the moment of its event; moments never go back from one call to the next. An error is a broken
/// promise, and the run is over: what the judge says after its first violation means nothing.
///
/// # Panics
/// All methods panic if the caller breaks their rules: a moment before the last one, an id that this judge did not give
/// out, an outcome that does not fit its request, a second outcome. Then the harness is wrong, not the ledger.
#[derive(Debug, Default)]
pub struct Judge {
    now: Moment,
    book: Book,
    entries: Entries,
    heads: Heads,
    floor: Floor,
    acknowledged: Acknowledged,
    refused: Refused,
    order: Order,
    watches: Watches,
    segments: Segments,
    origin: Option<String>,
    /// Nodes whose whole ledger was given, with its size.
    ledgers: Vec<(NodeId, u64)>,
    checked: Checked,
}

impl Judge {
    /// A judge who has seen nothing.
    pub fn new() -> Judge {
        Judge::default()
    }

    /// A client begins an operation, through `node` if it is sent to one and no other. To be called before anything of
    /// it can reach a node. Returns the id under which the outcome is to be told.
    ///
    /// Every write is to be told, also those that set a run up: an entry that nobody wrote is a violation.
    pub fn invoked(
        &mut self,
        at: Moment,
        client: ClientId,
        node: Option<NodeId>,
        request: Request,
    ) -> OperationId {
        self.move_to(at);
        self.checked.operations += 1;
        let (life, size) = node.map_or((0, 0), |node| self.order.life(node));
        let floor = self.floor.at(at);
        let (id, new) = self
            .book
            .begin(at, client, (node, life, size), request, floor);
        if let Some(write) = new {
            self.refused.begin(&self.book, write);
        }
        id
    }

    /// A client was told what became of its operation. To be called after all of the answer has arrived. What never
    /// returns is as if of unknown outcome.
    ///
    /// # Errors
    /// The promise this breaks.
    pub fn returned(&mut self, at: Moment, id: OperationId, outcome: Outcome) -> Check {
        self.move_to(at);
        let operation = &mut self.book.operations[id.0];
        assert!(operation.returned.is_none(), "{id} returns a second time");
        let write = match &operation.action {
            Action::Write(write) => Some(*write),
            Action::Read { keys, .. } => {
                if let Outcome::Answered(answer) = &outcome {
                    assert_eq!(
                        answer.saw.len(),
                        keys.len(),
                        "{id} sees one version for each key"
                    );
                }
                None
            }
        };
        let fits = match &outcome {
            Outcome::Acknowledged(_) | Outcome::ConditionFailed { .. } => write.is_some(),
            Outcome::Answered(_) => write.is_none(),
            Outcome::Refused | Outcome::Unknown => true,
        };
        assert!(fits, "{id} has the outcome of another kind of operation");
        operation.returned = Some((at, outcome.clone()));
        match (write, outcome) {
            (Some(write), outcome) => self.write_returned(at, id, write, outcome),
            (None, Outcome::Answered(answer)) => self.read_returned(at, id, &answer),
            (None, _) => Ok(()),
        }
    }

    fn write_returned(
        &mut self,
        at: Moment,
        id: OperationId,
        write: WriteId,
        outcome: Outcome,
    ) -> Check {
        if outcome != Outcome::Unknown {
            self.book.writes[write.0].open -= 1;
        }
        match outcome {
            Outcome::Acknowledged(entries) => {
                return self.write_acknowledged(at, id, write, &entries);
            }
            Outcome::ConditionFailed { step, current } => {
                self.checked.conditions_failed += 1;
                let step = self.book.write(write).steps.get(step);
                conditions::failed(at, &self.book, &self.entries, id, step, current)?;
                self.observe(at, id)?;
            }
            _ => {}
        }
        if self.book.write(write).may_appear() {
            return Ok(());
        }
        self.refused.refused(at, &self.book, &self.entries, write)
    }

    fn write_acknowledged(
        &mut self,
        at: Moment,
        id: OperationId,
        write: WriteId,
        entries: &[Appended],
    ) -> Check {
        let book = &mut self.book;
        self.acknowledged
            .acknowledge(at, book, id, write, entries)?;
        order::contiguous(at, book, id, entries)?;
        self.refused.acknowledge(at, book, id, write, entries)?;
        let Some(first) = entries.first().map(|entry| entry.index) else {
            let evidence = format!(
                "a write that appends nothing was acknowledged: {}",
                book.text(id)
            );
            return Err(broken(Invariant::Acknowledged, at, evidence));
        };
        if book.write(write).acknowledged.is_some() {
            self.checked.replayed += 1;
        } else {
            self.checked.acknowledged += 1;
            book.writes[write.0].acknowledged = Some(crate::book::Acknowledgement {
                first,
                operation: id,
                at,
            });
        }
        let place = linearizable::acknowledged(at, book, id, write, first.get())?;
        conditions::acknowledged(at, book, &self.entries, write, first.get())?;
        let contents: Vec<_> = book.write(write).contents().collect();
        for (entry, content) in entries.iter().zip(contents) {
            let known = Known {
                kind: content.kind(),
                key: content.key,
                value: content.value,
                leaf_hash: entry.leaf_hash,
                source: Source::Acknowledged(id),
                at,
            };
            self.told(at, entry.index, known, entry.timestamp_ms)?;
        }
        self.floor.raise(at, place, id);
        Ok(())
    }

    fn read_returned(&mut self, at: Moment, id: OperationId, answer: &Answer) -> Check {
        let Some((keys, consistency, _)) = self.book.operation(id).answer() else {
            return Ok(());
        };
        let keys = keys.to_vec();
        match consistency {
            Consistency::Linearizable => self.checked.linearizable_reads += 1,
            _ => self.checked.stale_reads += 1,
        }
        self.checked.versions_read += keys.len() as u64;
        bytes::answered(
            at,
            &self.book,
            &self.entries,
            id,
            (&keys, consistency, answer),
        )?;
        for (key, seen) in keys.iter().zip(&answer.saw) {
            let Some(seen) = seen else { continue };
            let (kind, value) = match seen.version {
                Version::Value(value) => (LeafKind::Put, value),
                Version::Tombstone => (LeafKind::Delete, None),
            };
            let known = Known {
                kind,
                key: *key,
                value,
                leaf_hash: None,
                source: Source::Read(id),
                at,
            };
            self.told(at, seen.index, known, None)?;
        }
        self.order.answered(at, &self.book, id)?;
        self.observe(at, id)
    }

    /// What an operation saw counts as a linearizable read, if it is one.
    fn observe(&mut self, at: Moment, id: OperationId) -> Check {
        let floor = self.book.floor_of(id);
        let place = linearizable::observed(at, &self.book, &self.entries, id, floor)?;
        if let Some(place) = place {
            self.floor.raise(at, place, id);
        }
        Ok(())
    }

    /// Somebody told of the entry at an index.
    fn told(&mut self, at: Moment, index: LeafIndex, known: Known, time: Option<u64>) -> Check {
        let index = index.get();
        let learned = self.entries.learn(index, known).map_err(|contradiction| {
            let acknowledged = self.acknowledged.owner(index).is_some();
            bytes::contradiction(at, &self.book, index, &known, contradiction, acknowledged)
        })?;
        if let Some(time) = time {
            self.order.time(at, index, time)?;
        }
        if learned.content
            && let Some(content) = self.entries.get(index).and_then(Known::content)
        {
            self.refused
                .appeared(at, &self.book, &self.entries, content, index)?;
        }
        if learned.leaf_hash {
            self.heads
                .grow(&self.entries)
                .map_err(|fork| checkpoints::forked(at, &fork))?;
        }
        Ok(())
    }

    /// An entry was seen on a node: in a list, by its index, in a history. It need not be the newest of anything.
    ///
    /// # Errors
    /// The promise this breaks.
    pub fn entry_seen(&mut self, at: Moment, node: NodeId, entry: &Entry) -> Check {
        self.move_to(at);
        self.checked.entries_seen += 1;
        self.entry(at, Source::Seen(node), entry)
    }

    fn entry(&mut self, at: Moment, source: Source, entry: &Entry) -> Check {
        let known = Known {
            kind: entry.kind,
            key: self.book.keys.id(&entry.key),
            value: entry.value.filter(|_| entry.kind == LeafKind::Put),
            leaf_hash: entry.leaf_hash,
            source,
            at,
        };
        self.told(at, entry.index, known, entry.timestamp_ms)
    }

    /// The checkpoint that a node shows: what its `/checkpoint` answers. Those of one node are to be told in the order
    /// in which it gave them: ask it one at a time.
    ///
    /// # Errors
    /// The promise this breaks.
    pub fn checkpoint_seen(
        &mut self,
        at: Moment,
        node: NodeId,
        tree_size: TreeSize,
        root_hash: Hash,
    ) -> Check {
        self.move_to(at);
        self.head(at, Holder::Node(node), tree_size, root_hash)?;
        self.order.shown(at, node, tree_size)
    }

    /// The head that a node remembers as the last it signed or cosigned, as found in its key directory.
    ///
    /// # Errors
    /// The promise this breaks.
    pub fn signed(
        &mut self,
        at: Moment,
        node: NodeId,
        tree_size: TreeSize,
        root_hash: Hash,
    ) -> Check {
        self.move_to(at);
        self.head(at, Holder::Node(node), tree_size, root_hash)?;
        self.order.signed(at, node, tree_size)
    }

    /// A checkpoint that somebody else holds, in whatever order: from a receipt, from a witness, from a static copy.
    /// `holder` is named in evidence.
    ///
    /// # Errors
    /// The promise this breaks.
    pub fn checkpoint_held(
        &mut self,
        at: Moment,
        holder: &str,
        tree_size: TreeSize,
        root_hash: Hash,
    ) -> Check {
        self.move_to(at);
        self.head(at, Holder::Other(holder.to_owned()), tree_size, root_hash)
    }

    /// The same as [`Judge::checkpoint_seen`], from the text of the signed note; also compares its origin with that of
    /// all other notes. Its signatures are not verified here.
    ///
    /// # Errors
    /// The promise this breaks. A text that is no checkpoint breaks [`Invariant::Checkpoints`].
    pub fn note_seen(&mut self, at: Moment, node: NodeId, note: &str) -> Check {
        self.move_to(at);
        let signed = SignedCheckpoint::parse(note).map_err(|error| {
            let evidence = format!("{node} shows a checkpoint that is none ({error}): {note:?}");
            broken(Invariant::Checkpoints, at, evidence)
        })?;
        let checkpoint = signed.checkpoint();
        let origin = self
            .origin
            .get_or_insert_with(|| checkpoint.origin.to_string());
        if *origin != checkpoint.origin {
            let evidence = format!(
                "{node} shows a checkpoint of `{}`, all others are of `{origin}`",
                checkpoint.origin
            );
            return Err(broken(Invariant::Checkpoints, at, evidence));
        }
        self.checkpoint_seen(at, node, checkpoint.size, checkpoint.root)
    }

    fn head(&mut self, at: Moment, holder: Holder, size: TreeSize, root: Hash) -> Check {
        self.checked.checkpoints += 1;
        let shown = Shown {
            root,
            holder,
            at,
            signed: true,
        };
        self.heads
            .show(size.get(), shown)
            .map_err(|fork| checkpoints::forked(at, &fork))
    }

    /// What a node has applied. Those of one node are to be told in the order in which it said so: ask it one at a time,
    /// and tell of its starts in between.
    ///
    /// # Errors
    /// The promise this breaks.
    pub fn node_state(&mut self, at: Moment, node: NodeId, state: NodeState) -> Check {
        self.move_to(at);
        self.checked.node_states += 1;
        self.order.state(at, node, &state)?;
        roots::state(at, &mut self.heads, node, &state)
    }

    /// A node is about to start, after a stop, a crash or a loss of power: from now on it may have applied less than
    /// before, until it has caught up. What it signed and what it shows may not go back.
    pub fn node_started(&mut self, at: Moment, node: NodeId) {
        self.move_to(at);
        self.checked.starts += 1;
        self.order.started(node);
    }

    /// A node has a sealed segment with this SHA-256 over the whole file.
    ///
    /// # Errors
    /// The promise this breaks.
    pub fn segment_sealed(&mut self, at: Moment, node: NodeId, number: u64, sha256: Hash) -> Check {
        self.move_to(at);
        self.checked.segments += 1;
        self.segments.sealed(at, node, number, sha256)
    }

    /// A watch begins, that is to tell of everything that fits its filter from index `from` on. One watch goes on over
    /// reconnections that resume after its last event, through whichever node.
    pub fn watch_began(&mut self, at: Moment, filter: Filter, from: LeafIndex) -> WatchId {
        self.move_to(at);
        self.checked.watches += 1;
        self.watches.began(filter, from.get())
    }

    /// A watch told of an entry.
    ///
    /// # Errors
    /// The promise this breaks.
    pub fn watch_event(&mut self, at: Moment, watch: WatchId, entry: &Entry) -> Check {
        self.move_to(at);
        self.checked.watch_events += 1;
        self.watches
            .event(at, (&self.book, &self.entries), watch, entry)?;
        self.entry(at, Source::Watch(watch), entry)
    }

    /// A watch said that it has looked at everything up to and including `index`.
    ///
    /// # Errors
    /// The promise this breaks.
    pub fn watch_progress(&mut self, at: Moment, watch: WatchId, index: LeafIndex) -> Check {
        self.move_to(at);
        self.watches
            .progress(at, (&self.book, &self.entries), watch, index.get())
    }

    /// The first index that a watch has not told of, nor said it has looked at. That a watch gets to the end of the
    /// ledger in time is for the caller to see to: nothing here knows how long that may take.
    pub fn watch_next(&self, watch: WatchId) -> LeafIndex {
        LeafIndex::new(self.watches.next(watch))
    }

    /// The whole ledger of a node that has caught up, from index 0 to its end, after the last operation: values and leaf
    /// hashes included. To be called for each node that can be asked, before [`Judge::finish`].
    ///
    /// # Errors
    /// The promise this breaks.
    ///
    /// # Panics
    /// If an entry has no leaf hash, or a put no value: without them nothing can be compared.
    pub fn whole_ledger(
        &mut self,
        at: Moment,
        node: NodeId,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Check {
        self.move_to(at);
        let mut size = 0;
        for entry in entries {
            assert!(
                entry.leaf_hash.is_some() && (entry.kind != LeafKind::Put || entry.value.is_some()),
                "an entry of a whole ledger has its leaf hash and its value: {entry:?}"
            );
            order::next_of_ledger(at, node, size, entry.index)?;
            self.entry(at, Source::Ledger(node), &entry)?;
            size += 1;
        }
        self.checked.ledgers += 1;
        self.checked.ledger_entries += size;
        self.ledgers.push((node, size));
        Ok(())
    }

    /// What was checked so far. The counts of outcomes are complete only in what [`Judge::finish`] returns.
    pub fn checked(&self) -> Checked {
        let checkpoints = self.checked.checkpoints;
        Checked {
            checkpoint_pairs: checkpoints * checkpoints.saturating_sub(1) / 2,
            roots: self.heads.compared,
            segments_compared: self.segments.compared,
            ..self.checked
        }
    }

    /// Compares everything with the ledger that came of it. What has not returned is of unknown outcome.
    ///
    /// # Errors
    /// The promise that was broken. Without any whole ledger, everything acknowledged counts as lost.
    pub fn finish(mut self) -> Result<Checked, Violation> {
        let at = self.now;
        let size = self
            .ledgers
            .iter()
            .map(|(_, size)| *size)
            .max()
            .unwrap_or(0);
        if self.ledgers.is_empty() {
            self.acknowledged
                .covers(at, &self.book, NodeId(0), size)
                .map_err(|mut violation| {
                    violation.evidence =
                        format!("no whole ledger was given: {}", violation.evidence);
                    violation
                })?;
        }
        for (node, size) in &self.ledgers {
            self.acknowledged.covers(at, &self.book, *node, *size)?;
        }
        if self.entries.size() > size
            && let Some(known) = self.entries.get(self.entries.size() - 1)
        {
            let evidence = format!(
                "the entry at index {} is gone, the longest ledger has tree size {size}: {}",
                self.entries.size() - 1,
                known.text(&self.book)
            );
            return Err(broken(Invariant::Bytes, at, evidence));
        }
        checkpoints::finish(at, &self.heads, size)?;

        let mut order: Vec<(u64, KeyId)> = self
            .entries
            .iter()
            .filter(|(_, known)| known.kind != LeafKind::System)
            .map(|(index, known)| (index, known.key))
            .collect();
        order.sort_unstable();
        let versions = Versions::of(order);
        let unknown = self.refused.find_unknown(
            at,
            (&self.book, &self.entries),
            &self.acknowledged,
            &versions,
        )?;
        self.count_writes(&unknown);
        let mut places = unknown;
        for id in self.book.write_ids() {
            if let Some(acknowledged) = self.book.write(id).acknowledged {
                places.insert(id, acknowledged.first.get());
            }
        }
        self.order.finish(at, size)?;
        self.finish_reads(at, size, &versions, &places)?;
        self.watches.finish(at, &self.book, &self.entries)?;
        Ok(self.checked())
    }

    fn finish_reads(
        &mut self,
        at: Moment,
        size: u64,
        versions: &Versions<KeyId>,
        places: &BTreeMap<WriteId, u64>,
    ) -> Check {
        let (book, entries) = (&self.book, &self.entries);
        let each = || places.iter().map(|(id, first)| (*id, *first));
        let transactions = Transactions::of(book, each());
        transactions.finish(at, book, &self.heads)?;
        bytes::finish(at, book, entries, versions, &transactions, size)?;
        self.checked.conditions_held = conditions::finish(at, book, entries, versions, each())?;
        self.checked.placed = linearizable::finish(at, book, versions, &transactions, places)?;
        Ok(())
    }

    fn count_writes(&mut self, unknown: &BTreeMap<WriteId, u64>) {
        for id in self.book.write_ids() {
            let write = self.book.write(id);
            if write.acknowledged.is_some() {
                continue;
            }
            let count = match (write.may_appear(), unknown.contains_key(&id)) {
                (false, _) => &mut self.checked.refused,
                (true, true) => &mut self.checked.unknown_appended,
                (true, false) => &mut self.checked.unknown_not_appended,
            };
            *count += 1;
        }
    }

    fn move_to(&mut self, at: Moment) {
        assert!(
            at >= self.now,
            "moments never go back: {at} after {}",
            self.now
        );
        self.now = at;
    }
}
