//! Many receipts in one request.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Problem, RECEIPTS_MAX};

/// Body of `POST /v1/receipts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiptsRequest {
    /// The versions to be proved, 1 to 1,000.
    #[serde(deserialize_with = "super::capped::list::<_, _, RECEIPTS_MAX>")]
    pub entries: Vec<ReceiptWanted>,
}

/// One version to be proved: its key, as exactly one of `key` and `key_base64`, and its index unless
/// it is the key's newest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiptWanted {
    /// The key, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key in standard base64 otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Leaf index of the version, which must be one of the key's; the newest if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}

/// Answer to `POST /v1/receipts`: all receipts are under one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptsResponse {
    /// Tree size of that checkpoint; `null` if there is no receipt.
    pub tree_size: Option<u64>,
    /// One per version asked for, in their order.
    pub receipts: Vec<EntryReceipt>,
}

/// One receipt of a [`ReceiptsResponse`], or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EntryReceipt {
    /// The key, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Leaf index of the version that is proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The receipt, tlog-proof text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Why there is none: `not_found`, or `future` for an index that the ledger does not reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}
