//! Who changes the membership: new machines join with a token and become voters, others are removed or replaced, the
//! leader too. One change after the other, asked of any node and asked again until it is certain what became of it, as a
//! careful operator does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use scribe::node::{AdminError, Change};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::chance::Chance;
use crate::cluster::Counts;
use crate::machine::{Machine, Presence};
use crate::options::Options;
use crate::requests::{Membership, Request};
use crate::trace::Trace;

/// A node may take as long as this for a change, and a little more.
const ANSWER_PATIENCE: Duration = Duration::from_secs(35);
/// How long a new machine may take to be a member that runs.
const JOIN_PATIENCE: Duration = Duration::from_secs(40);
/// How long a learner may take to be caught up and made a voter.
const PROMOTE_PATIENCE: Duration = Duration::from_secs(30);
/// Refusals in a row after which a change is given up.
const REFUSALS_MAX: u64 = 10;
/// Fewer voters than this there never are.
const VOTERS_MIN: usize = 3;
/// A machine that was removed may still run for so long, milliseconds.
const LINGER_MS_MAX: u64 = 6_000;

/// What the world knows of the operator.
#[derive(Debug, Clone)]
pub struct Operator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    machines: Vec<Arc<Machine>>,
    trace: Trace,
    /// One nudge at most waits here: [`Self::busy`] is set before it and cleared after the change.
    nudge: Notify,
    busy: AtomicBool,
    counts: Mutex<Counts>,
}

impl Operator {
    /// An operator who has nothing to do yet.
    pub fn new(machines: Vec<Arc<Machine>>, trace: Trace) -> Self {
        let shared = Arc::new(Shared {
            machines,
            trace,
            nudge: Notify::new(),
            busy: AtomicBool::new(false),
            counts: Mutex::default(),
        });
        Self { shared }
    }

    /// What it does, from the first nudge on. It never ends.
    pub fn run(&self, options: &Options) -> impl Future<Output = turmoil::Result> + use<> {
        let mut work = Work {
            shared: Arc::clone(&self.shared),
            chance: Chance::new(options.seed, "operator"),
            voters_max: options.nodes as usize + 2,
        };
        async move {
            loop {
                work.shared.nudge.notified().await;
                work.change().await;
                work.shared.busy.store(false, Relaxed);
            }
        }
    }

    /// Has it change something, unless it is at it: a nudge then is forgotten, so that no change begins after the last one
    /// that was asked for has ended.
    pub fn change_something(&self) {
        if !self.shared.busy.swap(true, Relaxed) {
            self.shared.nudge.notify_one();
        }
    }

    /// Whether a change is under way, or it is not known yet what became of one.
    pub fn is_busy(&self) -> bool {
        self.shared.busy.load(Relaxed)
    }

    /// What it did.
    pub fn counts(&self) -> Counts {
        self.shared.counts.lock().clone()
    }
}

struct Work {
    shared: Arc<Shared>,
    chance: Chance,
    voters_max: usize,
}

impl Work {
    async fn change(&mut self) {
        self.look_who_votes().await;
        let voters = self.all(|machine| machine.is_member() && machine.is_voter());
        let learner = self.all(|machine| machine.is_member() && !machine.is_voter());
        let learner = learner.first().cloned();
        let wish = self.chance.below(100);
        if wish >= 75 && voters.len() > VOTERS_MIN {
            if let Some(old) = self.who_may_go(&voters, None) {
                self.remove(&old).await;
            }
            return;
        }
        let new = match learner {
            Some(learner) => Some(learner),
            None => self.join().await,
        };
        let Some(new) = new else { return };
        match wish {
            0..=34 if voters.len() < self.voters_max => drop(self.promote(&new).await),
            _ => {
                let Some(old) = self.who_may_go(&voters, Some(&new)) else {
                    return;
                };
                match new.stays_learner() {
                    true => self.replace(&old, &new).await,
                    false if self.promote(&new).await => self.remove(&old).await,
                    false => {}
                }
            }
        }
    }

    /// Some became voters by themselves, or after it was given up to wait for it.
    async fn look_who_votes(&mut self) {
        let Some(membership) = self.membership().await else {
            return;
        };
        for machine in &self.shared.machines {
            let id = machine.node_id().unwrap_or_default();
            if membership.committed.get(&id) == Some(&true) {
                machine.set_voter();
            }
        }
    }

    fn all(&self, such: impl Fn(&Machine) -> bool) -> Vec<Arc<Machine>> {
        let machines = self.shared.machines.iter();
        machines.filter(|machine| such(machine)).cloned().collect()
    }

    fn count(&self, what: &'static str) {
        *self.shared.counts.lock().entry(what).or_default() += 1;
    }

    /// A voter that may leave: of those that stay, fewer than half may have damage.
    fn who_may_go(
        &mut self,
        voters: &[Arc<Machine>],
        by: Option<&Arc<Machine>>,
    ) -> Option<Arc<Machine>> {
        if voters.is_empty() {
            return None;
        }
        let old = Arc::clone(self.chance.pick(voters));
        let rotten = self.all(|machine| {
            machine.is_present() && machine.id != old.id && machine.rotten.load(Relaxed)
        });
        let stay = voters.len() - 1 + by.iter().len();
        (rotten.len() * 2 < stay).then_some(old)
    }

    /// Asks any member that runs.
    async fn ask<T>(&mut self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let members = self.all(|machine| machine.is_member() && machine.door().is_some());
        if members.is_empty() {
            return None;
        }
        let door = self.chance.pick(&members).door()?;
        let (sender, receiver) = oneshot::channel();
        door.send(request(sender)).ok()?;
        timeout(ANSWER_PATIENCE, receiver).await.ok()?.ok()
    }

    async fn administer(&mut self, change: Change) -> Answer {
        let said = self.ask(|reply| Request::Administer(change, reply)).await;
        let answer = match &said {
            Some(Ok(())) => Answer::Done,
            Some(Err(AdminError::Refused { .. })) => Answer::Refused,
            Some(Err(_)) | None => Answer::Unknown,
        };
        let text = match said {
            Some(Ok(())) => "done".to_owned(),
            Some(Err(error)) => error.to_string(),
            None => "no answer".to_owned(),
        };
        self.shared
            .trace
            .line(format_args!("operator: {change:?}: {text}"));
        answer
    }

    /// The committed membership, by a node that has just heard from the leader.
    async fn membership(&mut self) -> Option<Membership> {
        self.ask(Request::Membership).await?.ok()
    }

    /// A new machine becomes a learner. One that does not come is given up, and what is left of it removed.
    async fn join(&mut self) -> Option<Arc<Machine>> {
        let waiting = self.all(|machine| machine.presence() == Presence::Waiting);
        let new = Arc::clone(waiting.first()?);
        let token = self.ask(Request::Token).await?.ok()?;
        self.shared
            .trace
            .line(format_args!("operator: {} is to join", new.name));
        new.invite(token);
        self.count("machines_invited");
        let deadline = Instant::now() + JOIN_PATIENCE;
        while Instant::now() < deadline {
            sleep(Duration::from_millis(100)).await;
            // It is a member as soon as it knows its id, whether or not its process lives on.
            if new.node_id().is_some() && new.node().is_some() {
                new.set_presence(Presence::Member);
                self.count("machines_joined");
                return Some(new);
            }
        }
        new.set_presence(Presence::Gone);
        self.count("machines_given_up");
        let membership = self.membership().await?;
        let left = membership.known.get(&crate::machine::address(new.id));
        if let Some(left) = left {
            self.administer(Change::Remove(*left)).await;
        }
        None
    }

    /// A learner becomes a voter, or does so by itself. Whether it has.
    async fn promote(&mut self, new: &Arc<Machine>) -> bool {
        let Some(id) = new.node_id() else {
            return false;
        };
        let deadline = Instant::now() + PROMOTE_PATIENCE;
        while Instant::now() < deadline {
            let done = match new.stays_learner() {
                true => self.administer(Change::Promote(id)).await == Answer::Done,
                false => false,
            };
            let membership = self.membership().await;
            if done
                || membership.is_some_and(|membership| membership.committed.get(&id) == Some(&true))
            {
                new.set_voter();
                self.count("members_promoted");
                return true;
            }
            sleep(self.chance.ms(100..=1_000)).await;
        }
        false
    }

    async fn remove(&mut self, old: &Arc<Machine>) {
        let Some(id) = old.node_id() else { return };
        if self.see_off(old, Change::Remove(id)).await {
            self.count("members_removed");
        }
    }

    async fn replace(&mut self, old: &Arc<Machine>, new: &Arc<Machine>) {
        let (Some(old_id), Some(by)) = (old.node_id(), new.node_id()) else {
            return;
        };
        if self.see_off(old, Change::Replace { old: old_id, by }).await {
            new.set_voter();
            self.count("members_replaced");
        }
    }

    /// Asks for a change after which `old` is no member until it is certain, and whether it is so. Its process may run for
    /// a while longer.
    async fn see_off(&mut self, old: &Arc<Machine>, change: Change) -> bool {
        let (mut refused, mut unsure) = (0, None);
        old.set_presence(Presence::Leaving);
        loop {
            let answer = self.administer(change).await;
            match answer {
                Answer::Done => break,
                Answer::Refused => refused += 1,
                Answer::Unknown => (refused, unsure) = (0, Some(Instant::now())),
            }
            if let Some(membership) = self.membership().await
                && !membership
                    .committed
                    .contains_key(&old.node_id().unwrap_or_default())
            {
                break;
            }
            // Nothing that was begun is still under way.
            let settled = unsure.is_none_or(|at: Instant| at.elapsed() > ANSWER_PATIENCE);
            if refused > REFUSALS_MAX && settled {
                old.set_presence(Presence::Member);
                self.count("changes_given_up");
                return false;
            }
            sleep(self.chance.ms(100..=1_500)).await;
        }
        self.shared
            .trace
            .line(format_args!("operator: {} is no member any more", old.name));
        let lingers = self.chance.ms(0..=LINGER_MS_MAX);
        sleep(lingers).await;
        old.set_presence(Presence::Gone);
        true
    }
}

/// What an asked node said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Done,
    Refused,
    /// It may have been done, or may be done yet.
    Unknown,
}
