//! Reads the messages that carry lists: elements are counted before memory is set aside for them.
//!
//! An element may take two bytes on the wire and a hundred in memory, so a message within its limit could ask for fifty
//! times as much. A member is believed in what it says, not in how much memory it may take.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::WireType;

use super::wire::{ForwardAnswer, ForwardRequest, JoinAnswer, LedgerKeysMessage, Malformed};
use crate::consensus::rpc::{MalformedMessage, check_count};
use crate::limits;

/// Keys of the ledger in one message: the first one, and those beside it.
const LEDGER_KEYS_MAX: usize = 1 + limits::LEDGER_KEYS_MAX;

impl From<MalformedMessage> for Malformed {
    fn from(error: MalformedMessage) -> Self {
        Self(error.0)
    }
}

impl ForwardRequest {
    /// Reads the message, jobs and the operations of each counted first.
    ///
    /// # Errors
    /// More than [`limits::FRAME_OPERATIONS_MAX`] jobs, more than [`limits::TRANSACTION_OPERATIONS_MAX`] operations in
    /// one, or no such message.
    pub fn read(body: Bytes) -> Result<Self, Malformed> {
        check_count(&body, 1, limits::FRAME_OPERATIONS_MAX)?;
        let mut rest = &body[..];
        while !rest.is_empty() {
            let (tag, wire_type) = prost::encoding::decode_key(&mut rest)?;
            if tag == 1 && wire_type == WireType::LengthDelimited {
                let length = prost::encoding::decode_varint(&mut rest)?;
                let job = usize::try_from(length)
                    .ok()
                    .and_then(|length| rest.split_at_checked(length));
                let Some((job, after)) = job else {
                    return Err(Malformed(format!("a job of {length} bytes is cut off")));
                };
                check_count(job, 2, limits::TRANSACTION_OPERATIONS_MAX)?;
                rest = after;
            } else {
                let context = prost::encoding::DecodeContext::default();
                prost::encoding::skip_field(wire_type, tag, &mut rest, context)?;
            }
        }
        Ok(Self::decode(body)?)
    }
}

impl ForwardAnswer {
    /// Reads the answer to `jobs` jobs.
    ///
    /// # Errors
    /// More outcomes than jobs, or no such message.
    pub fn read(body: Bytes, jobs: usize) -> Result<Self, Malformed> {
        check_count(&body, 1, jobs)?;
        Ok(Self::decode(body)?)
    }
}

impl LedgerKeysMessage {
    /// Reads the message.
    ///
    /// # Errors
    /// More keys than a key directory holds, or no such message.
    pub fn read(body: Bytes) -> Result<Self, Malformed> {
        check_count(&body, 1, LEDGER_KEYS_MAX)?;
        check_count(&body, 2, LEDGER_KEYS_MAX)?;
        Ok(Self::decode(body)?)
    }
}

impl JoinAnswer {
    /// Reads the answer.
    ///
    /// # Errors
    /// More keys than a key directory holds, or no such message.
    pub fn read(body: Bytes) -> Result<Self, Malformed> {
        check_count(&body, 7, LEDGER_KEYS_MAX)?;
        Ok(Self::decode(body)?)
    }
}
