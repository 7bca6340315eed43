//! What a node had on its disk, and has to find there after a start: no client sees a node that has forgotten something
//! as long as the others make up for it, and by the time they no longer can it is too late.

use scribe::node::Node;

/// What is known of one machine.
#[derive(Debug, Default)]
pub struct Kept {
    /// Which process of the machine was looked at last.
    life: u64,
    /// Last log entry that was on its disk and applied: it was agreed on, so nothing takes it back.
    log_index: u64,
    /// Term of its vote.
    term: u64,
    /// Sealed segments.
    sealed: usize,
}

impl Kept {
    /// Looks at the node of process number `life`. `rotten` says that its files were damaged: it may have lost something,
    /// if it noticed. `lied` says that its disk wrote something to the wrong place: then it may have lost what it wrote last
    /// and not know it.
    ///
    /// # Errors
    /// What it has forgotten, or lost without a fault, in words.
    pub fn look(&mut self, life: u64, node: &Node, rotten: bool, lied: bool) -> Result<(), String> {
        let had = std::mem::replace(&mut self.life, life);
        let sealed = node.sealed_list().len();
        if had != life {
            if lied {
                self.log_index = 0;
            }
            self.began(node, rotten)?;
        } else if sealed < self.sealed && !rotten {
            return Err(format!(
                "had {} sealed segments and has {sealed}",
                self.sealed
            ));
        }
        self.sealed = sealed;
        let term = node.kept_term();
        if term < self.term && !rotten {
            return Err(format!(
                "had voted in term {} and has no vote after term {term} on its disk",
                self.term
            ));
        }
        self.term = term;
        // What it lost it may still be getting back.
        if !node.is_restoring() {
            self.log_index = self.log_index.max(node.kept_log_index());
        }
        Ok(())
    }

    fn began(&mut self, node: &Node, rotten: bool) -> Result<(), String> {
        let log = &node.open_report().log;
        let last = log.last.map_or(0, |id| id.index.0);
        if rotten {
            // Cut by this start, or by one before it that did not get to its end.
            if node.is_restoring() {
                self.log_index = 0;
            }
        } else if let Some(lost) = &log.lost {
            return Err(format!(
                "takes its log for damaged, and no bit of it was changed: {lost}"
            ));
        } else if let Some(damage) = log.sealed_damage.first() {
            return Err(format!(
                "takes its sealed segment {} for damaged, and no bit of it was changed: {}",
                damage.segment, damage.reason
            ));
        } else if log.sealed.len() < self.sealed {
            return Err(format!(
                "had {} sealed segments before it was started and has {}",
                self.sealed,
                log.sealed.len()
            ));
        }
        if last < self.log_index {
            return Err(format!(
                "had the log up to index {} on its disk before it was started, and has it up to {last}",
                self.log_index
            ));
        }
        Ok(())
    }
}
