//! Values, histories, lists, entries, proofs.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use scribe_proof::{LeafIndex, Receipt, SignedCheckpoint, TilePath, TreeSize};

use super::{Answer, Call, Client, not_understood};
use crate::error::Error;
use crate::retry::Safety;
use crate::wire::{
    At, ConsistencyProof, EntryPage, EntryView, HEADER_INDEX, HEADER_LEAF_HASH, HEADER_META_PREFIX,
    HEADER_MIN_INDEX, HEADER_TIMESTAMP, HEADER_TREE_SIZE, Health, HexHash, History, InclusionProof,
    KeyList, KeysGetRequest, KeysGetResponse, LedgerInfo, bytes::to_members,
};

/// How long a node may take to say how it is. It waits for nobody longer than two seconds.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(6);

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default)]
struct Freshness {
    stale: bool,
    min_index: Option<u64>,
}

impl Freshness {
    fn add_to(self, call: &mut Call) -> Result<(), Error> {
        if self.stale {
            call.query("consistency", "stale");
        }
        match self.min_index {
            Some(index) => call.header(HEADER_MIN_INDEX, &index.to_string()),
            None => Ok(()),
        }
    }
}

/// The methods every read of current state has.
macro_rules! freshness_methods {
    () => {
        /// Takes what the node has applied, without asking the leader how far the ledger is.
        pub fn stale(mut self) -> Self {
            self.freshness.stale = true;
            self
        }

        /// Waits until the node has applied the entry at this index: with
        /// [`stale`](Self::stale), read your own writes from any node.
        pub fn min_index(mut self, index: u64) -> Self {
            self.freshness.min_index = Some(index);
            self
        }
    };
}

impl Client {
    /// Reads the current value of `key`, or an older version.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get<'_> {
        Get {
            head: self.head(key),
            range: None,
        }
    }

    /// As [`Client::get`], without the value.
    pub fn head(&self, key: impl AsRef<[u8]>) -> Head<'_> {
        Head {
            client: self,
            key: key.as_ref().to_vec(),
            index: None,
            at: None,
            freshness: Freshness::default(),
        }
    }

    /// Reads the versions of `key`, newest first.
    pub fn history(&self, key: impl AsRef<[u8]>) -> HistoryRequest<'_> {
        HistoryRequest {
            client: self,
            key: key.as_ref().to_vec(),
            limit: None,
            cursor: None,
            freshness: Freshness::default(),
        }
    }

    /// Lists keys in byte order. What the node leaves out cannot be noticed.
    pub fn list(&self) -> List<'_> {
        List {
            client: self,
            prefix: None,
            start: None,
            end: None,
            at: None,
            limit: None,
            cursor: None,
            freshness: Freshness::default(),
        }
    }

    /// Reads many keys at once, in one consistent read. The answer has those that are UTF-8
    /// first, then the others.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> KeysGet<'_> {
        let mut request = KeysGetRequest::default();
        for key in keys {
            match to_members(key.as_ref()) {
                (Some(text), _) => request.keys.push(text),
                (_, Some(base64)) => request.keys_base64.push(base64),
                (None, None) => (),
            }
        }
        KeysGet {
            client: self,
            request,
            freshness: Freshness::default(),
        }
    }

    /// Reads the entry at `index`, whatever its key.
    pub fn entry(&self, index: u64) -> ReadEntry<'_> {
        ReadEntry {
            client: self,
            index,
            raw: false,
            freshness: Freshness::default(),
        }
    }

    /// Reads a page of the ledger in order, beginning at index `from`.
    pub fn entries(&self, from: u64) -> ReadEntries<'_> {
        ReadEntries {
            client: self,
            from,
            limit: None,
            raw: false,
            freshness: Freshness::default(),
        }
    }

    /// Fetches the receipt of `key`'s current version, or an older one. It is parsed, not
    /// verified.
    pub fn receipt(&self, key: impl AsRef<[u8]>) -> ReceiptRequest<'_> {
        ReceiptRequest {
            client: self,
            key: key.as_ref().to_vec(),
            index: None,
        }
    }

    /// Fetches a raw inclusion proof, not verified.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn inclusion(
        &self,
        index: LeafIndex,
        tree_size: TreeSize,
    ) -> Result<InclusionProof, Error> {
        let mut call = Call::get("/v1/proofs/inclusion");
        call.query("index", index.to_string());
        call.query("tree_size", tree_size.to_string());
        self.call_json(&call, Safety::Read).await
    }

    /// Fetches a raw consistency proof between two tree sizes, not verified.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn consistency(
        &self,
        old: TreeSize,
        new: TreeSize,
    ) -> Result<ConsistencyProof, Error> {
        let mut call = Call::get("/v1/proofs/consistency");
        call.query("old", old.to_string());
        call.query("new", new.to_string());
        self.call_json(&call, Safety::Read).await
    }

    /// Fetches the newest published checkpoint. It is parsed, not verified.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn checkpoint(&self) -> Result<SignedCheckpoint, Error> {
        let note = self.checkpoint_text().await?;
        let call = Call::get("/checkpoint");
        SignedCheckpoint::parse(&note).map_err(|error| not_understood(&call, &error))
    }

    /// Fetches the newest published checkpoint as the signed note it is, byte for byte, not even
    /// parsed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn checkpoint_text(&self) -> Result<String, Error> {
        let call = Call::get("/checkpoint");
        self.call(&call, Safety::Read).await?.text(&call)
    }

    /// Fetches a tile of hashes or a bundle of leaves (<https://c2sp.org/tlog-tiles>), not
    /// verified. What goes beyond the node's newest checkpoint is refused with `not_found`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tile(&self, path: &TilePath) -> Result<Bytes, Error> {
        let call = Call::get(format!("/{path}"));
        Ok(self.call(&call, Safety::Read).await?.body)
    }

    /// Asks for the ledger's name, keys and size. None of it is to be trusted: pin a key or a
    /// policy that you got another way.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ledger(&self) -> Result<LedgerInfo, Error> {
        self.call_json(&Call::get("/v1/ledger"), Safety::Read).await
    }

    /// Asks whether the node is ready; not repeated. A node that is not ready answers too.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn health(&self) -> Result<Health, Error> {
        let call = Call::get("/health/ready");
        let timeout = HEALTH_TIMEOUT;
        let answer = tokio::time::timeout(timeout, async {
            let (request, _) = self.request(&call);
            let response = request.send().await;
            let response = response.map_err(|error| Error::Transport(super::transport(&error)))?;
            let status = response.status();
            let body = super::read_body(response, super::PROBLEM_LENGTH_MAX).await;
            Ok::<_, Error>((status, body.map_err(|failure| failure.error)?))
        });
        let (status, body) = answer.await.map_err(|_| super::timed_out(timeout))??;
        match serde_json::from_slice(&body) {
            Ok(health) => Ok(health),
            Err(error) if status.is_success() => Err(not_understood(&call, &error)),
            Err(_) => Err(Error::Server(Box::new(super::read_problem(status, &body)))),
        }
    }
}

/// What is known about a version besides its value. Not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueHead {
    /// Leaf index.
    pub index: u64,
    /// When it was appended.
    pub timestamp_ms: u64,
    /// SHA-256 of the leaf.
    pub leaf_hash: HexHash,
    /// Media type.
    pub content_type: Option<String>,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
    /// Bytes of the answer's body: of the value, unless a range was asked for.
    pub length: Option<u64>,
    /// The tree size the read saw.
    pub tree_size: Option<u64>,
}

/// A version with its value. Not verified; see [`crate::VerifyingClient::get_verified`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Everything but the value.
    pub head: ValueHead,
    /// The value, or the range of it that was asked for.
    pub bytes: Bytes,
}

impl ValueHead {
    fn read(answer: &Answer) -> Result<ValueHead, Error> {
        let mut metadata = BTreeMap::new();
        for (name, value) in &answer.headers {
            if let Some(name) = name.as_str().strip_prefix(HEADER_META_PREFIX) {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                metadata.insert(name.to_owned(), value);
            }
        }
        Ok(ValueHead {
            index: answer.parsed(HEADER_INDEX)?,
            timestamp_ms: answer.parsed(HEADER_TIMESTAMP)?,
            leaf_hash: answer.parsed(HEADER_LEAF_HASH)?,
            content_type: answer
                .header("content-type")
                .map(std::borrow::Cow::into_owned),
            metadata,
            length: answer.parsed("content-length").ok(),
            tree_size: answer.parsed(HEADER_TREE_SIZE).ok(),
        })
    }
}

/// A read without the value, to be sent; see [`Client::head`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct Head<'a> {
    client: &'a Client,
    key: Vec<u8>,
    index: Option<u64>,
    at: Option<At>,
    freshness: Freshness,
}

impl Head<'_> {
    freshness_methods!();

    /// The version at this index, which must be one of the key's.
    pub fn index(mut self, index: u64) -> Self {
        self.index = Some(index);
        self
    }

    /// The version that was current at this point.
    pub fn at(mut self, at: At) -> Self {
        self.at = Some(at);
        self
    }

    /// Sends it, again if need be. `None` if the node says that there is none, or that it was
    /// deleted.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(self) -> Result<Option<ValueHead>, Error> {
        let answer = self.answer(Method::HEAD, None).await?;
        answer.map(|answer| ValueHead::read(&answer)).transpose()
    }

    async fn answer(
        self,
        method: Method,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<Answer>, Error> {
        let mut call = Call::for_key(method, &self.key, "");
        call.query_some("index", self.index);
        call.query_some("at", self.at);
        self.freshness.add_to(&mut call)?;
        if let Some(range) = range {
            let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
                return Err(Error::InvalidArgument(
                    "a range must not be empty".to_owned(),
                ));
            };
            call.header("range", &format!("bytes={}-{last}", range.start))?;
        }
        match self.client.call(&call, Safety::Read).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A read to be sent; see [`Client::get`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct Get<'a> {
    head: Head<'a>,
    range: Option<std::ops::Range<u64>>,
}

impl Get<'_> {
    /// The version at this index, which must be one of the key's.
    pub fn index(self, index: u64) -> Self {
        Get {
            head: self.head.index(index),
            ..self
        }
    }

    /// The version that was current at this point.
    pub fn at(self, at: At) -> Self {
        Get {
            head: self.head.at(at),
            ..self
        }
    }

    /// Takes what the node has applied, without asking the leader how far the ledger is.
    pub fn stale(self) -> Self {
        Get {
            head: self.head.stale(),
            ..self
        }
    }

    /// Waits until the node has applied the entry at this index.
    pub fn min_index(self, index: u64) -> Self {
        Get {
            head: self.head.min_index(index),
            ..self
        }
    }

    /// Only these bytes of the value.
    pub fn range(mut self, bytes: std::ops::Range<u64>) -> Self {
        self.range = Some(bytes);
        self
    }

    /// Sends it, again if need be. `None` if the node says that there is none, or that it was
    /// deleted.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(self) -> Result<Option<Value>, Error> {
        let is_range = self.range.is_some();
        let Some(answer) = self.head.answer(Method::GET, self.range).await? else {
            return Ok(None);
        };
        let head = ValueHead::read(&answer)?;
        if is_range != (answer.status == reqwest::StatusCode::PARTIAL_CONTENT) {
            let status = answer.status;
            return Err(Error::UnexpectedAnswer(format!(
                "a range is answered with 206 and a whole value with 200, found {status}"
            )));
        }
        Ok(Some(Value {
            head,
            bytes: answer.body,
        }))
    }
}

/// A history to be fetched; see [`Client::history`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct HistoryRequest<'a> {
    client: &'a Client,
    key: Vec<u8>,
    limit: Option<u64>,
    cursor: Option<String>,
    freshness: Freshness,
}

impl HistoryRequest<'_> {
    freshness_methods!();

    /// At most this many versions, up to 1,000.
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Goes on where a page ended: its `next`.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }

    /// Sends it, again if need be.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(self) -> Result<History, Error> {
        let mut call = Call::for_key(Method::GET, &self.key, "/history");
        call.query_some("limit", self.limit);
        call.query_some("cursor", self.cursor);
        self.freshness.add_to(&mut call)?;
        self.client.call_json(&call, Safety::Read).await
    }
}

/// A list to be fetched; see [`Client::list`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct List<'a> {
    client: &'a Client,
    prefix: Option<Vec<u8>>,
    start: Option<Vec<u8>>,
    end: Option<Vec<u8>>,
    at: Option<At>,
    limit: Option<u64>,
    cursor: Option<String>,
    freshness: Freshness,
}

impl List<'_> {
    freshness_methods!();

    /// Only keys that begin with this.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = Some(prefix.as_ref().to_vec());
        self
    }

    /// Only keys from this one on.
    pub fn start(mut self, start: impl AsRef<[u8]>) -> Self {
        self.start = Some(start.as_ref().to_vec());
        self
    }

    /// Only keys before this one.
    pub fn end(mut self, end: impl AsRef<[u8]>) -> Self {
        self.end = Some(end.as_ref().to_vec());
        self
    }

    /// The state at this point.
    pub fn at(mut self, at: At) -> Self {
        self.at = Some(at);
        self
    }

    /// At most this many keys, up to 1,000.
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Goes on where a page ended: its `next`.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }

    /// Sends it, again if need be.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(self) -> Result<KeyList, Error> {
        let mut call = Call::get("/v1/keys");
        let bounds = [
            ("prefix", self.prefix),
            ("start", self.start),
            ("end", self.end),
        ];
        for (name, bound) in bounds {
            if let Some(bound) = bound {
                call.query(name, bound);
            }
        }
        call.query_some("at", self.at);
        call.query_some("limit", self.limit);
        call.query_some("cursor", self.cursor);
        self.freshness.add_to(&mut call)?;
        self.client.call_json(&call, Safety::Read).await
    }
}

/// A read of many keys, to be sent; see [`Client::get_many`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct KeysGet<'a> {
    client: &'a Client,
    request: KeysGetRequest,
    freshness: Freshness,
}

impl KeysGet<'_> {
    freshness_methods!();

    /// The state at this point.
    pub fn at(mut self, at: At) -> Self {
        self.request.at = Some(at);
        self
    }

    /// Sends it, again if need be.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(self) -> Result<KeysGetResponse, Error> {
        let mut call = Call::new(Method::POST, "/v1/keys:get");
        self.freshness.add_to(&mut call)?;
        call.json(&self.request)?;
        self.client.call_json(&call, Safety::Read).await
    }
}

/// An entry to be fetched; see [`Client::entry`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct ReadEntry<'a> {
    client: &'a Client,
    index: u64,
    raw: bool,
    freshness: Freshness,
}

impl ReadEntry<'_> {
    freshness_methods!();

    /// With leaf and salt, so that [`crate::verify::check_entry`] can check it.
    pub fn raw(mut self) -> Self {
        self.raw = true;
        self
    }

    /// Sends it, again if need be.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(self) -> Result<EntryView, Error> {
        let mut call = Call::get(format!("/v1/entries/{}", self.index));
        call.query_some("raw", self.raw.then_some(true));
        self.freshness.add_to(&mut call)?;
        self.client.call_json(&call, Safety::Read).await
    }
}

/// A page of entries to be fetched; see [`Client::entries`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct ReadEntries<'a> {
    client: &'a Client,
    from: u64,
    limit: Option<u64>,
    raw: bool,
    freshness: Freshness,
}

impl ReadEntries<'_> {
    freshness_methods!();

    /// At most this many entries, up to 1,000.
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// With leaves and salts, so that [`crate::verify::check_entry`] can check them.
    pub fn raw(mut self) -> Self {
        self.raw = true;
        self
    }

    /// Sends it, again if need be.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(self) -> Result<EntryPage, Error> {
        let mut call = Call::get("/v1/entries");
        call.query("from", self.from.to_string());
        call.query_some("limit", self.limit);
        call.query_some("raw", self.raw.then_some(true));
        self.freshness.add_to(&mut call)?;
        self.client.call_json(&call, Safety::Read).await
    }
}

/// A receipt to be fetched; see [`Client::receipt`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct ReceiptRequest<'a> {
    client: &'a Client,
    key: Vec<u8>,
    index: Option<u64>,
}

impl ReceiptRequest<'_> {
    /// Of the version at this index, which must be one of the key's.
    pub fn index(mut self, index: u64) -> Self {
        self.index = Some(index);
        self
    }

    /// Sends it, again if need be. The node waits some seconds for a version to be published.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(self) -> Result<Receipt, Error> {
        let mut call = Call::for_key(Method::GET, &self.key, "/receipt");
        call.query_some("index", self.index);
        let text = self.client.call(&call, Safety::Read).await?.text(&call)?;
        Receipt::parse(&text).map_err(|error| not_understood(&call, &error))
    }
}
