//! The leader's one proposer: gathers the writes that wait into frames, fixes each frame completely, proposes it, and
//! tells every writer what became of it.
//!
//! A single task does all of it, and only while this node leads and has applied an entry of its own term: what was
//! committed before is then settled. Each rule below answers a schedule that would otherwise lose or double a write:
//!
//! - **Frames are fixed here**: conditions and idempotency are judged against the applied state plus an overlay of the
//!   frames in flight; leaf indexes, timestamps and salts are in the bytes. Followers judge nothing.
//! - **One after another**: frames enter the Raft log in the order they were built, bound to this term. On any refusal,
//!   void or unknown outcome the task stops proposing, waits for every outstanding frame, and starts over from the
//!   applied state; only what was *definitely* refused is sequenced again.
//! - **A refusal is a read**: a failed condition is reported only after what it saw is applied and a read barrier of the
//!   same leader in the same term, started after it was judged. A replayed outcome is already applied and needs none.
//! - **Back-pressure lives here**: bytes and submissions are admitted up to a limit; beyond it a write is refused at
//!   once and nothing else ever waits on sealing.

mod draft;
mod overlay;
mod submission;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use scribe_proof::hash::{Hash, leaf_hash};
use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::{LeafKind, Prev};
use tokio::sync::{mpsc, watch};

use draft::Draft;
use overlay::Overlay;
pub(crate) use submission::UnitAppended;
pub use submission::{
    Appended, CarriedEntry, Condition, Operation, Transaction, TransactionAppended, Write,
    WriteKind, check_key,
};
pub(crate) use submission::{Collector, Permit, Preparer, Reply, Unit, UnitOutcome};
use submission::{Content, Idempotency};

use crate::consensus::{
    AppliedOutcome, ConsensusNode, Leadership, PendingProposal, Proposal, ProposalResult,
};
use crate::error::AppendError;
use crate::ledger::batch::{BatchBuilder, IdempotencyDigest};
use crate::limits;
use crate::planted;
use crate::store::Store;
use crate::world::World;

/// Pause before proposing again on a leader whose lease had lapsed (right after an election).
const LEASE_RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Pause suggested to a writer that was not admitted.
const OVERLOADED_RETRY_MS: u64 = 50;

/// What the sequencer counts, for metrics.
#[derive(Debug, Default)]
pub struct SequencerStats {
    /// Frames proposed.
    pub frames: AtomicU64,
    /// Leaves in them.
    pub leaves: AtomicU64,
    /// Times it started over from the applied state.
    pub rewinds: AtomicU64,
    /// Writes not admitted.
    pub overloaded: AtomicU64,
    /// Conditions that did not hold.
    pub refusals: AtomicU64,
    /// Outcomes replayed by idempotency key.
    pub replays: AtomicU64,
}

/// The way to the sequencer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sequencer {
    sender: mpsc::Sender<Unit>,
    admitted_bytes: Arc<AtomicUsize>,
    stats: Arc<SequencerStats>,
}

impl Sequencer {
    /// Starts the task. It ends when every handle is dropped.
    pub fn start(
        consensus: ConsensusNode,
        store: Store,
        world: World,
        disk_full: Arc<AtomicBool>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(limits::SEQUENCER_SUBMISSIONS_MAX);
        let stats = Arc::new(SequencerStats::default());
        let task = Task {
            leadership: consensus.leadership(),
            consensus,
            store,
            world,
            receiver,
            pending: VecDeque::new(),
            term: 0,
            disk_full,
            stats: Arc::clone(&stats),
        };
        let handle = tokio::spawn(task.run());
        (
            Self {
                sender,
                admitted_bytes: Arc::default(),
                stats,
            },
            handle,
        )
    }

    /// Resolves once the task has ended: at shutdown, or because it failed.
    pub async fn ended(&self) {
        self.sender.closed().await;
    }

    /// Counters.
    pub fn stats(&self) -> &SequencerStats {
        &self.stats
    }

    /// Bytes admitted and not yet answered.
    pub fn admitted_bytes(&self) -> usize {
        self.admitted_bytes.load(Ordering::Acquire)
    }

    /// Admits a unit, or answers it with `overloaded`. Its outcome arrives through its reply.
    pub(crate) fn submit(&self, mut unit: Unit) {
        // Each unit counts a little more than its bytes, so that millions of empty writes are bounded too.
        let bytes = unit.byte_length + 128;
        let before = self.admitted_bytes.fetch_add(bytes, Ordering::AcqRel);
        unit.permit = Some(Permit {
            bytes,
            admitted: Arc::clone(&self.admitted_bytes),
        });
        if before > 0 && before + bytes > limits::SEQUENCER_BYTES_MAX {
            self.stats.overloaded.fetch_add(1, Ordering::Relaxed);
            return answer(
                unit,
                &Err(AppendError::Overloaded {
                    retry_after_ms: OVERLOADED_RETRY_MS,
                }),
            );
        }
        match self.sender.try_send(unit) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(unit)) => {
                self.stats.overloaded.fetch_add(1, Ordering::Relaxed);
                answer(
                    unit,
                    &Err(AppendError::Overloaded {
                        retry_after_ms: OVERLOADED_RETRY_MS,
                    }),
                );
            }
            Err(mpsc::error::TrySendError::Closed(unit)) => {
                answer(
                    unit,
                    &Err(AppendError::Unavailable(
                        "the node is shutting down".to_owned(),
                    )),
                );
            }
        }
    }
}

/// Tells every writer that waits for a unit.
fn answer(mut unit: Unit, outcome: &UnitOutcome) {
    let mut replies = std::mem::take(&mut unit.replies).into_iter();
    if let Some(first) = replies.next() {
        first.send(outcome.clone());
    }
    // Whoever joined with the same idempotency key hears that it is a replay.
    for reply in replies {
        let mut outcome = outcome.clone();
        if let Ok(appended) = &mut outcome {
            appended.replayed = true;
        }
        reply.send(outcome);
    }
}

struct Task {
    consensus: ConsensusNode,
    store: Store,
    world: World,
    leadership: watch::Receiver<Leadership>,
    receiver: mpsc::Receiver<Unit>,
    /// Units not yet placed in a frame, oldest first.
    pending: VecDeque<Unit>,
    /// The term served now, or last.
    term: u64,
    /// Whether new entries are refused for lack of space. Looked at after the idempotency key: the outcome of an
    /// earlier write is answered all the same.
    disk_full: Arc<AtomicBool>,
    stats: Arc<SequencerStats>,
}

/// Why a term of service ended.
enum Ended {
    /// Serve again if this node still leads.
    Rewind { pause: bool },
    /// No handle is left.
    Closed,
}

struct InFlight {
    number: u64,
    pending: PendingProposal,
    first: LeafIndex,
    units: Vec<Placed>,
    /// Refusals that saw a version of this frame: reported once it is applied.
    refusals: Vec<Refusal>,
}

struct Placed {
    unit: Unit,
    /// Position of its first leaf in the frame.
    start: usize,
    count: usize,
    timestamp_ms: u64,
}

struct Refusal {
    unit: Unit,
    error: AppendError,
}

/// What judging a unit found.
enum Verdict {
    Accept(Vec<Prev>),
    /// Its outcome is known from an earlier request.
    Replay(UnitAppended),
    /// The same request is in flight: wait for it.
    Join {
        frame: u64,
        unit: usize,
    },
    /// It must not be written; `saw` is the newest frame in flight the judgement rests on.
    Refuse {
        error: AppendError,
        saw: Option<u64>,
    },
}

impl Task {
    async fn run(mut self) {
        loop {
            let leadership = *self.leadership.borrow_and_update();
            let ended = match leadership {
                Leadership::Leading { term } => self.serve(term).await,
                Leadership::Waiting { leader } => self.wait(leader).await,
                Leadership::Stopped => {
                    self.refuse_all("consensus has stopped").await;
                    return;
                }
            };
            match ended {
                Ended::Rewind { pause: true } => tokio::time::sleep(LEASE_RETRY_PAUSE).await,
                Ended::Rewind { pause: false } => {}
                Ended::Closed => return,
            }
        }
    }

    /// Not leading: answers what comes in until that changes.
    async fn wait(&mut self, leader: Option<u64>) -> Ended {
        let error = match leader {
            Some(id) => AppendError::NotLeader {
                leader: self
                    .consensus
                    .peer_address(id)
                    .map(|address| address.http_addr),
            },
            None => AppendError::Unavailable("no leader is known yet".to_owned()),
        };
        for unit in self.pending.drain(..) {
            answer(unit, &Err(error.clone()));
        }
        tokio::select! {
            changed = self.leadership.changed() => {
                if changed.is_err() { Ended::Closed } else { Ended::Rewind { pause: false } }
            }
            unit = self.receiver.recv() => match unit {
                Some(unit) => {
                    answer(unit, &Err(error));
                    Ended::Rewind { pause: false }
                }
                None => Ended::Closed,
            },
        }
    }

    async fn refuse_all(&mut self, reason: &str) {
        let error = AppendError::Unavailable(reason.to_owned());
        for unit in self.pending.drain(..) {
            answer(unit, &Err(error.clone()));
        }
        while let Some(unit) = self.receiver.recv().await {
            answer(unit, &Err(error.clone()));
        }
    }

    /// Leads term `term` until anything goes wrong.
    async fn serve(&mut self, term: u64) -> Ended {
        self.term = term;
        let applied = self.store.applied();
        let mut overlay = Overlay {
            next_index: applied.tree_size.next_index(),
            last_timestamp_ms: applied.last_timestamp_ms,
            next_frame: 0,
            frames: VecDeque::new(),
            keys: HashMap::new(),
            idempotency: HashMap::new(),
        };
        let mut incoming = Vec::new();
        loop {
            while self.is_worth_a_frame(&overlay) {
                self.propose_frame(term, &mut overlay).await;
            }
            let room = overlay.frames.len() < limits::FRAMES_IN_FLIGHT_MAX
                && self.pending.len() < limits::FRAME_OPERATIONS_MAX;
            tokio::select! {
                biased;
                result = front_result(&mut overlay.frames), if !overlay.frames.is_empty() => {
                    if let Some(ended) = self.settle(&mut overlay, result).await {
                        return ended;
                    }
                }
                changed = self.leadership.changed() => {
                    let same = changed.is_ok() && *self.leadership.borrow_and_update() == Leadership::Leading { term };
                    if !same {
                        self.rewind(&mut overlay).await;
                        return if changed.is_ok() { Ended::Rewind { pause: false } } else { Ended::Closed };
                    }
                }
                count = self.receiver.recv_many(&mut incoming, limits::FRAME_OPERATIONS_MAX), if room => {
                    if count == 0 {
                        self.rewind(&mut overlay).await;
                        return Ended::Closed;
                    }
                    self.pending.extend(incoming.drain(..));
                }
            }
        }
    }

    /// Whether to propose a frame now. With nothing in flight: at once, so that a lone write never waits. Otherwise only
    /// a frame as full as the fullest one in flight, so that a busy leader proposes few large frames instead of many
    /// small ones; the results that come in are the clock, and there is no timer.
    fn is_worth_a_frame(&self, overlay: &Overlay) -> bool {
        if self.pending.is_empty() || overlay.frames.len() >= limits::FRAMES_IN_FLIGHT_MAX {
            return false;
        }
        let fullest = overlay
            .frames
            .iter()
            .map(|frame| frame.units.len())
            .max()
            .unwrap_or(0);
        let enough = fullest.min(limits::FRAME_OPERATIONS_MAX / 2);
        self.pending.len() >= enough
            || self
                .pending
                .iter()
                .map(|unit| unit.byte_length)
                .sum::<usize>()
                >= limits::FRAME_BYTES_TARGET
    }

    /// Builds one frame of what waits and proposes it. Refused, replayed and joined units go their own way.
    async fn propose_frame(&mut self, term: u64, overlay: &mut Overlay) {
        let number = overlay.next_frame;
        let first = overlay.next_index;
        let mut draft = Draft {
            builder: BatchBuilder::new(),
            first,
            last_timestamp_ms: overlay.last_timestamp_ms,
            now_ms: self.world.now_ms(),
            leaves: Vec::new(),
            ends: Vec::new(),
        };
        let mut units: Vec<Placed> = Vec::new();
        let mut refusals = Vec::new();
        let mut settled_refusals = Vec::new();
        while let Some(unit) = self.pending.front() {
            let leaves = unit.leaf_count();
            let full = draft.builder.count() + leaves > limits::FRAME_OPERATIONS_MAX
                || draft.builder.byte_length() + unit.byte_length > limits::FRAME_BYTES_TARGET;
            if full && draft.builder.count() > 0 {
                break;
            }
            let Some(mut unit) = self.pending.pop_front() else {
                break;
            };
            let verdict =
                match self.judge(&unit, overlay, draft.now_ms.max(draft.last_timestamp_ms)) {
                    Ok(verdict) => verdict,
                    Err(error) => {
                        answer(unit, &Err(AppendError::Unavailable(error.to_string())));
                        continue;
                    }
                };
            match verdict {
                Verdict::Replay(outcome) => {
                    self.stats.replays.fetch_add(1, Ordering::Relaxed);
                    answer(unit, &Ok(outcome));
                }
                Verdict::Join {
                    frame,
                    unit: position,
                } => {
                    let target = if frame == number {
                        units.get_mut(position)
                    } else {
                        overlay
                            .frame_mut(frame)
                            .and_then(|frame| frame.units.get_mut(position))
                    };
                    if let Some(placed) = target {
                        placed.unit.replies.append(&mut unit.replies);
                    } else {
                        answer(unit, &Err(AppendError::UnknownOutcome));
                    }
                }
                Verdict::Refuse { error, saw } => {
                    self.stats.refusals.fetch_add(1, Ordering::Relaxed);
                    let refusal = Refusal { unit, error };
                    match saw {
                        None => settled_refusals.push(refusal),
                        Some(frame) if frame == number => refusals.push(refusal),
                        Some(frame) => match overlay.frame_mut(frame) {
                            Some(frame) => frame.refusals.push(refusal),
                            None => settled_refusals.push(refusal),
                        },
                    }
                }
                Verdict::Accept(_) if self.disk_full.load(Ordering::Relaxed) => {
                    answer(unit, &Err(AppendError::DiskFull));
                }
                Verdict::Accept(prevs) => {
                    let start = draft.builder.count();
                    let timestamp_ms = match draft.push_unit(&unit, &prevs) {
                        Ok(timestamp_ms) => timestamp_ms,
                        Err(error) => {
                            answer(unit, &Err(error));
                            continue;
                        }
                    };
                    overlay.place(&unit, number, units.len());
                    if let Some(Idempotency {
                        key_hash,
                        fingerprint,
                    }) = unit.idempotency
                    {
                        draft.builder.push_digest(IdempotencyDigest {
                            first: start as u16,
                            count: leaves as u16,
                            key_hash,
                            fingerprint,
                        });
                    }
                    units.push(Placed {
                        unit,
                        start,
                        count: leaves,
                        timestamp_ms,
                    });
                }
            }
        }
        self.report_refusals(settled_refusals);
        if units.is_empty() {
            // Refusals that saw this frame cannot exist without a unit in it.
            self.report_refusals(refusals);
            return;
        }
        let count = draft.builder.count() as u32;
        let (public, private) = draft.builder.finish();
        let proposal = Proposal::Entries {
            sequencing_term: term,
            first_leaf: first,
            count,
            public,
            private,
        };
        // A crash from here to the sync leaves no trace, and nobody was told otherwise.
        let pending = self.consensus.propose(proposal, term).await;
        overlay.next_frame += 1;
        overlay.last_timestamp_ms = draft.last_timestamp_ms;
        overlay.frames.push_back(InFlight {
            number,
            pending,
            first,
            units,
            refusals,
        });
        self.stats.frames.fetch_add(1, Ordering::Relaxed);
        self.stats
            .leaves
            .fetch_add(u64::from(count), Ordering::Relaxed);
    }

    /// Judges a unit against the applied state and the overlay.
    fn judge(&self, unit: &Unit, overlay: &Overlay, now_ms: u64) -> std::io::Result<Verdict> {
        if let Some(idempotency) = &unit.idempotency
            && let Some(verdict) = self.judge_idempotency(idempotency, overlay, now_ms)?
        {
            return Ok(verdict);
        }
        let mut prevs = Vec::with_capacity(unit.operations.len());
        for (operation, prepared) in unit.operations.iter().enumerate() {
            if prepared.condition == Condition::None {
                prevs.push(Prev::NotAsserted);
                continue;
            }
            let (current, saw) = self.current_version(&prepared.key, overlay)?;
            let holds = match (prepared.condition, current) {
                (Condition::Absent, None | Some((_, true))) => true,
                (Condition::Version(wanted), Some((index, _))) => wanted == index,
                _ => false,
            };
            if !holds {
                let error = AppendError::ConditionFailed {
                    operation,
                    key: prepared.key.clone(),
                    current_index: current.map(|(index, _)| index),
                    deleted: current.is_some_and(|(_, deleted)| deleted),
                };
                return Ok(Verdict::Refuse { error, saw });
            }
            prevs.push(current.map_or(Prev::None, |(index, _)| Prev::Version(index)));
        }
        Ok(Verdict::Accept(prevs))
    }

    fn judge_idempotency(
        &self,
        wanted: &Idempotency,
        overlay: &Overlay,
        now_ms: u64,
    ) -> std::io::Result<Option<Verdict>> {
        // planted
        if let Some(write) = overlay.idempotency.get(&wanted.key_hash)
            && !planted::has("idempotency-overlay-ignored")
        {
            if write.fingerprint != wanted.fingerprint {
                let error = AppendError::IdempotencyMismatch;
                return Ok(Some(Verdict::Refuse {
                    error,
                    saw: Some(write.frame),
                }));
            }
            return Ok(Some(Verdict::Join {
                frame: write.frame,
                unit: write.unit,
            }));
        }
        let Some(remembered) = self.store.idempotent(&wanted.key_hash, now_ms)? else {
            return Ok(None);
        };
        if remembered.fingerprint != wanted.fingerprint {
            return Ok(Some(Verdict::Refuse {
                error: AppendError::IdempotencyMismatch,
                saw: None,
            }));
        }
        let entries =
            self.store
                .entries(remembered.first, usize::from(remembered.count), usize::MAX)?;
        let leaf_hashes: Vec<Hash> = entries.iter().map(|entry| leaf_hash(&entry.leaf)).collect();
        if leaf_hashes.len() != usize::from(remembered.count) {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!(
                    "entry {} of a remembered write cannot be read",
                    remembered.first
                ),
            ));
        }
        Ok(Some(Verdict::Replay(UnitAppended {
            first: remembered.first,
            timestamp_ms: remembered.timestamp_ms,
            leaf_hashes,
            replayed: true,
        })))
    }

    /// The newest version of a key: its index, whether it is a tombstone, and the frame in flight that writes it.
    #[expect(
        clippy::type_complexity,
        reason = "three facts about one version, used once"
    )]
    fn current_version(
        &self,
        key: &Bytes,
        overlay: &Overlay,
    ) -> std::io::Result<(Option<(LeafIndex, bool)>, Option<u64>)> {
        // planted
        if let Some(version) = overlay.keys.get(key)
            && !planted::has("condition-overlay-ignored")
        {
            return Ok((Some((version.index, version.deleted)), Some(version.frame)));
        }
        let applied = self.store.applied().tree_size;
        let version = self.store.latest(key, applied)?;
        Ok((
            version.map(|version| (version.index, version.kind == LeafKind::Delete)),
            None,
        ))
    }

    /// The oldest frame has a result. `None` means go on.
    async fn settle(&mut self, overlay: &mut Overlay, result: ProposalResult) -> Option<Ended> {
        match result {
            ProposalResult::Applied(AppliedOutcome::Entries { first, leaf_hashes }) => {
                let frame = overlay.frames.pop_front()?;
                overlay.forget(&frame);
                self.acknowledge(frame, first, &leaf_hashes);
                None
            }
            other => {
                let mut requeue = VecDeque::new();
                let mut pause = false;
                if let Some(frame) = overlay.frames.pop_front() {
                    pause |= self.take_back(frame, other, &mut requeue);
                }
                pause |= self.drain(overlay, &mut requeue).await;
                self.requeue(requeue);
                Some(Ended::Rewind { pause })
            }
        }
    }

    /// A frame is applied: its writers hear it, and so do those whose refusal rests on it.
    fn acknowledge(&self, frame: InFlight, first: LeafIndex, leaf_hashes: &[Hash]) {
        debug_assert_eq!(
            frame.first, first,
            "frames are answered in the order they were proposed"
        );
        self.report_refusals(frame.refusals);
        for placed in frame.units {
            let hashes = leaf_hashes
                .get(placed.start..placed.start + placed.count)
                .unwrap_or_default();
            let appended = UnitAppended {
                first: LeafIndex::new(first.get() + placed.start as u64),
                timestamp_ms: placed.timestamp_ms,
                leaf_hashes: hashes.to_vec(),
                replayed: false,
            };
            answer(placed.unit, &Ok(appended));
        }
    }

    /// Stops proposing and waits for every outstanding frame.
    async fn rewind(&mut self, overlay: &mut Overlay) {
        let mut requeue = VecDeque::new();
        self.drain(overlay, &mut requeue).await;
        self.requeue(requeue);
    }

    fn requeue(&mut self, mut requeue: VecDeque<Unit>) {
        self.stats.rewinds.fetch_add(1, Ordering::Relaxed);
        requeue.append(&mut self.pending);
        self.pending = requeue;
    }

    async fn drain(&mut self, overlay: &mut Overlay, requeue: &mut VecDeque<Unit>) -> bool {
        let mut pause = false;
        while let Some(mut frame) = overlay.frames.pop_front() {
            let result = frame.pending.result().await;
            pause |= self.take_back(frame, result, requeue);
        }
        pause
    }

    /// Settles one frame after service has stopped; what was definitely refused goes to `requeue`.
    fn take_back(
        &self,
        frame: InFlight,
        result: ProposalResult,
        requeue: &mut VecDeque<Unit>,
    ) -> bool {
        let mut pause = false;
        match result {
            ProposalResult::Applied(AppliedOutcome::Entries { first, leaf_hashes }) => {
                self.acknowledge(frame, first, &leaf_hashes);
                return false;
            }
            // A void frame took no leaves and never will: the same writes may be sequenced again.
            ProposalResult::Applied(_) => {
                requeue.extend(frame.units.into_iter().map(|placed| placed.unit))
            }
            // Whatever the reason (a lapsed lease, leadership being handed over), the same refusal would come back at
            // once: a moment's pause lets the news of it arrive.
            ProposalResult::Refused { .. } => {
                pause = true;
                requeue.extend(frame.units.into_iter().map(|placed| placed.unit));
            }
            // It may still commit. Sequencing it again could write it twice; only its idempotency key settles it.
            ProposalResult::Unknown(reason) => {
                tracing::warn!(first = %frame.first, %reason, "the outcome of a frame is unknown");
                for placed in frame.units {
                    answer(placed.unit, &Err(AppendError::UnknownOutcome));
                }
            }
        }
        // What these saw may never come to be: judge them again.
        requeue.extend(frame.refusals.into_iter().map(|refusal| refusal.unit));
        pause
    }

    /// Reports refusals behind one read barrier that starts now, after they were judged, and that this leader passes in
    /// the term it judged in: a barrier by way of another leader would make a stale judgement look current.
    fn report_refusals(&self, refusals: Vec<Refusal>) {
        if refusals.is_empty() {
            return;
        }
        let (consensus, term) = (self.consensus.clone(), self.term);
        tokio::spawn(async move {
            let barrier = consensus.leader_barrier(term).await;
            for Refusal { unit, error } in refusals {
                let error = match &barrier {
                    Ok(()) => error,
                    Err(failed) => AppendError::Unavailable(failed.to_string()),
                };
                answer(unit, &Err(error));
            }
        });
    }
}

async fn front_result(frames: &mut VecDeque<InFlight>) -> ProposalResult {
    match frames.front_mut() {
        Some(frame) => frame.pending.result().await,
        None => std::future::pending().await,
    }
}

impl Unit {
    fn leaf_count(&self) -> usize {
        self.operations
            .iter()
            .filter(|prepared| !matches!(prepared.content, Content::Check))
            .count()
    }
}
