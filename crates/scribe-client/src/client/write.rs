//! Put, delete, transactions.

use std::collections::BTreeMap;

use bytes::Bytes;
use reqwest::Method;

use super::{Call, Client, random_key};
use crate::error::Error;
use crate::retry::Safety;
use crate::wire::{
    Appended, CheckOperation, DeleteOperation, HEADER_IDEMPOTENCY_KEY, HEADER_META_PREFIX,
    Operation, PutOperation, TransactionRequest, TransactionResponse, bytes::to_members,
};

/// Which of an entry's moments a write waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Durable on a majority.
    #[default]
    Appended,
    /// Covered by a signed checkpoint.
    Published,
}

/// A condition on the key's newest version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    #[default]
    None,
    Absent,
    Index(u64),
}

impl Condition {
    fn add_to(self, call: &mut Call) -> Result<(), Error> {
        match self {
            Condition::None => Ok(()),
            Condition::Absent => call.header("if-none-match", "*"),
            Condition::Index(index) => call.header("if-match", &format!("\"{index}\"")),
        }
    }
}

/// The methods every write has: its idempotency key.
macro_rules! idempotency_methods {
    () => {
        /// Uses this idempotency key (at most 255 visible ASCII characters) in place of a random
        /// one, so that a retry after a restart of the program is safe too.
        #[must_use]
        pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
            self.idempotency_key = Some(key.into());
            self
        }

        /// Sends no idempotency key. The write is then not repeated once its outcome is unknown.
        #[must_use]
        pub fn no_idempotency_key(mut self) -> Self {
            self.idempotency_key = None;
            self
        }
    };
}

impl Client {
    /// Appends a version of `key` (1 to 1,024 bytes).
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Put<'_> {
        Put {
            client: self,
            key: key.as_ref().to_vec(),
            value: value.into(),
            content_type: None,
            metadata: BTreeMap::new(),
            condition: Condition::None,
            idempotency_key: Some(random_key()),
            wait: Wait::Appended,
        }
    }

    /// Appends a tombstone for `key`. Its history stays.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete<'_> {
        Delete {
            client: self,
            key: key.as_ref().to_vec(),
            condition: Condition::None,
            idempotency_key: Some(random_key()),
        }
    }

    /// Appends all of these operations, or nothing.
    pub fn transaction(&self, operations: Vec<Operation>) -> Transact<'_> {
        Transact {
            client: self,
            request: TransactionRequest { operations },
            idempotency_key: Some(random_key()),
        }
    }
}

/// A put to be sent; see [`Client::put`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct Put<'a> {
    pub(crate) client: &'a Client,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Bytes,
    pub(crate) content_type: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) condition: Condition,
    idempotency_key: Option<String>,
    wait: Wait,
}

impl Put<'_> {
    idempotency_methods!();

    /// The value's media type.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Adds a pair of user metadata. Names are lowercase.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Only if the key has no version, or a tombstone as its newest.
    pub fn if_absent(mut self) -> Self {
        self.condition = Condition::Absent;
        self
    }

    /// Only if the key's newest version, also a tombstone, has this index.
    pub fn if_index(mut self, index: u64) -> Self {
        self.condition = Condition::Index(index);
        self
    }

    /// What to wait for; [`Wait::Appended`] unless set. If publishing takes too long the error's
    /// code is `not_published`: the entry is appended all the same.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Sends it, again if need be.
    ///
    /// # Errors
    /// See [`Error`]. [`Error::OutcomeUnknown`] if it may have been appended.
    pub async fn send(self) -> Result<Appended, Error> {
        let mut call = Call::for_key(Method::PUT, &self.key, "");
        if self.wait == Wait::Published {
            call.query("wait", "published");
        }
        if let Some(content_type) = &self.content_type {
            call.header("content-type", content_type)?;
        }
        for (name, value) in &self.metadata {
            call.header(&format!("{HEADER_META_PREFIX}{name}"), value)?;
        }
        self.condition.add_to(&mut call)?;
        call.body = Some(self.value);
        send_write(self.client, call, self.idempotency_key).await
    }
}

/// A delete to be sent; see [`Client::delete`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct Delete<'a> {
    client: &'a Client,
    key: Vec<u8>,
    condition: Condition,
    idempotency_key: Option<String>,
}

impl Delete<'_> {
    idempotency_methods!();

    /// Only if the key's newest version has this index.
    pub fn if_index(mut self, index: u64) -> Self {
        self.condition = Condition::Index(index);
        self
    }

    /// Sends it, again if need be.
    ///
    /// # Errors
    /// See [`Error`]. [`Error::OutcomeUnknown`] if it may have been appended.
    pub async fn send(self) -> Result<Appended, Error> {
        let mut call = Call::for_key(Method::DELETE, &self.key, "");
        self.condition.add_to(&mut call)?;
        send_write(self.client, call, self.idempotency_key).await
    }
}

/// A transaction to be sent; see [`Client::transaction`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct Transact<'a> {
    client: &'a Client,
    request: TransactionRequest,
    idempotency_key: Option<String>,
}

impl Transact<'_> {
    idempotency_methods!();

    /// Sends it, again if need be.
    ///
    /// # Errors
    /// See [`Error`]. [`Error::OutcomeUnknown`] if it may have been appended.
    pub async fn send(self) -> Result<TransactionResponse, Error> {
        let mut call = Call::new(Method::POST, "/v1/transactions");
        call.json(&self.request)?;
        send_write(self.client, call, self.idempotency_key).await
    }
}

async fn send_write<T: serde::de::DeserializeOwned>(
    client: &Client,
    mut call: Call,
    idempotency_key: Option<String>,
) -> Result<T, Error> {
    if let Some(key) = &idempotency_key {
        call.header(HEADER_IDEMPOTENCY_KEY, key)?;
    }
    client
        .call_json(&call, Safety::Write(idempotency_key.as_deref()))
        .await
}

impl Operation {
    /// Append a version; refine the [`PutOperation`] for more.
    #[must_use]
    pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Operation {
        let (key, key_base64) = to_members(key.as_ref());
        let (value, value_base64) = to_members(value.as_ref());
        Operation::Put(PutOperation {
            key,
            key_base64,
            value,
            value_base64,
            ..PutOperation::default()
        })
    }

    /// Append a tombstone.
    #[must_use]
    pub fn delete(key: impl AsRef<[u8]>) -> Operation {
        let (key, key_base64) = to_members(key.as_ref());
        Operation::Delete(DeleteOperation {
            key,
            key_base64,
            if_index: None,
        })
    }

    /// Go on only if the key has no version, or a tombstone as its newest.
    #[must_use]
    pub fn check_absent(key: impl AsRef<[u8]>) -> Operation {
        let (key, key_base64) = to_members(key.as_ref());
        Operation::Check(CheckOperation {
            key,
            key_base64,
            if_absent: true,
            if_index: None,
        })
    }

    /// Go on only if the key's newest version, also a tombstone, has this index.
    #[must_use]
    pub fn check_index(key: impl AsRef<[u8]>, index: u64) -> Operation {
        let (key, key_base64) = to_members(key.as_ref());
        Operation::Check(CheckOperation {
            key,
            key_base64,
            if_absent: false,
            if_index: Some(index),
        })
    }
}
