//! Who the members of a cluster are, how they are, and changing that.
//!
//! Any node takes these requests; the one that leads carries changes out.

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;

use super::{Call, Client};
use crate::error::Error;
use crate::retry::Safety;
use crate::wire::{
    Cluster, ClusterChanged, ClusterToken, ClusterTokenRequest, KeyRotated, Leader, LeaderRequest,
    Member, Members, ReplaceRequest,
};

/// How long a change of the cluster may take to be answered: it may wait for an election and for
/// entries to replicate, and the node gives up after 30 s.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(35);

impl Client {
    /// Asks for every member and how it is. Members that do not answer the node within a second
    /// are reported as such.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cluster(&self) -> Result<Cluster, Error> {
        self.call_json(&Call::get("/v1/cluster"), Safety::Read)
            .await
    }

    /// Asks for the members alone.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        let call = Call::get("/v1/cluster/members");
        let members: Members = self.call_json(&call, Safety::Read).await?;
        Ok(members.members)
    }

    /// Asks who leads.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn leader(&self) -> Result<Leader, Error> {
        self.call_json(&Call::get("/v1/cluster/leader"), Safety::Read)
            .await
    }

    /// Asks for a token with which one new node can join through the node that answers.
    ///
    /// # Errors
    /// See [`Error`]. The code is `cluster_refused` if the node runs alone.
    pub async fn cluster_token(&self, expires_in: Duration) -> Result<ClusterToken, Error> {
        let request = ClusterTokenRequest {
            expires_in_s: Some(expires_in.as_secs()),
        };
        let mut call = Call::new(Method::POST, "/v1/cluster/tokens");
        call.json(&request)?;
        // A token made by an attempt whose answer was lost is never used and expires.
        self.call_json(&call, Safety::Read).await
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// See [`Error`]. The code is `cluster_refused` if it breaks a rule, such as that the learner
    /// must have caught up.
    pub async fn promote(&self, node_id: u64) -> Result<(), Error> {
        let path = format!("/v1/cluster/members/{node_id}/promote");
        self.change(Method::POST, path, Some(&serde_json::Map::new()))
            .await
    }

    /// Removes a member for good: its id is never used again.
    ///
    /// # Errors
    /// See [`Error`]. The code is `cluster_refused` if it breaks a rule.
    pub async fn remove(&self, node_id: u64) -> Result<(), Error> {
        let path = format!("/v1/cluster/members/{node_id}");
        self.change(Method::DELETE, path, None::<&()>).await
    }

    /// Puts the learner `by` in the place of the voter `old`, which leaves for good, in one step.
    ///
    /// # Errors
    /// See [`Error`]. The code is `cluster_refused` if it breaks a rule.
    pub async fn replace(&self, old: u64, by: u64) -> Result<(), Error> {
        let path = format!("/v1/cluster/members/{old}/replace");
        self.change(Method::POST, path, Some(&ReplaceRequest { by }))
            .await
    }

    /// Hands leadership to a voter.
    ///
    /// # Errors
    /// See [`Error`]. The code is `cluster_refused` if it breaks a rule.
    pub async fn transfer(&self, node_id: u64) -> Result<(), Error> {
        let request = LeaderRequest { node_id };
        self.change(
            Method::POST,
            "/v1/cluster/leader".to_owned(),
            Some(&request),
        )
        .await
    }

    /// Puts a new key in the place of the ledger's signing key. Both sign for 30 days of ledger time.
    /// It is not repeated once an attempt may have reached the leader.
    ///
    /// # Errors
    /// See [`Error`]. The code is `cluster_refused` while a voter cannot be reached.
    pub async fn rotate_ledger_key(&self) -> Result<KeyRotated, Error> {
        let mut call = Call::new(Method::POST, "/v1/cluster/ledger-key");
        call.timeout = Some(CHANGE_TIMEOUT);
        call.json(&serde_json::Map::new())?;
        self.call_json(&call, Safety::Write(None)).await
    }

    /// Asks for a change. It is not repeated once an attempt may have reached the leader: a change
    /// that was made is refused when it is asked for again, which would read as a failure.
    async fn change(
        &self,
        method: Method,
        path: String,
        body: Option<&impl Serialize>,
    ) -> Result<(), Error> {
        let mut call = Call::new(method, path);
        call.timeout = Some(CHANGE_TIMEOUT);
        if let Some(body) = body {
            call.json(body)?;
        }
        let done: ClusterChanged = self.call_json(&call, Safety::Write(None)).await?;
        if !done.done {
            return Err(Error::UnexpectedAnswer(
                "a change was answered with `done` false".to_owned(),
            ));
        }
        Ok(())
    }
}
