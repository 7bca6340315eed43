//! Lists of a request that are counted while they are read.
//!
//! An element takes two or three bytes of JSON and a hundred in memory, so a body within its limit could ask for fifty
//! times as much. No more is kept than one element above what is allowed: enough for the ledger to refuse the request
//! with its own code. What is beyond is read, so that broken JSON is still found, and dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A list of which at most `MAX + 1` elements are kept.
pub(super) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut kept = Vec::new();
            while let Some(element) = elements.next_element()? {
                if kept.len() <= MAX {
                    kept.push(element);
                }
            }
            Ok(kept)
        }
    }

    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}

/// Pairs of texts of which at most `MAX + 1` are kept; of two with one name the later stays.
pub(super) fn pairs<'de, D, const MAX: usize>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Pairs<const MAX: usize>;

    impl<'de, const MAX: usize> Visitor<'de> for Pairs<MAX> {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
            let mut kept = BTreeMap::new();
            while let Some((name, value)) = pairs.next_entry()? {
                if kept.len() <= MAX || kept.contains_key(&name) {
                    kept.insert(name, value);
                }
            }
            Ok(kept)
        }
    }

    deserializer.deserialize_map(Pairs::<MAX>)
}

#[cfg(test)]
mod tests {
    use super::super::{KEYS_GET_MAX, KeysGetRequest, Operation, PutOperation, TransactionRequest};
    use scribe_proof::METADATA_PAIRS_MAX;

    #[test]
    fn a_list_far_too_long_is_not_kept() {
        let json = format!("{{\"keys\":[{}\"\"]}}", "\"\",".repeat(100_000));
        let read: KeysGetRequest = serde_json::from_str(&json).unwrap();
        assert_eq!(read.keys.len(), KEYS_GET_MAX + 1);
        let broken = json.replace("\"\"]", "7]");
        assert!(serde_json::from_str::<KeysGetRequest>(&broken).is_err());

        let json = format!(
            "{{\"operations\":[{}{{\"put\":{{}}}}]}}",
            "{\"put\":{}},".repeat(100_000)
        );
        let read: TransactionRequest = serde_json::from_str(&json).unwrap();
        assert_eq!(
            read.operations.len(),
            super::super::TRANSACTION_OPERATIONS_MAX + 1
        );
        assert_eq!(read.operations[0], Operation::Put(PutOperation::default()));
    }

    #[test]
    fn metadata_far_too_long_is_not_kept() {
        let pairs: Vec<String> = (0..50_000).map(|i| format!("\"{i}\":\"\"")).collect();
        let json = format!("{{\"metadata\":{{{}}}}}", pairs.join(","));
        let read: PutOperation = serde_json::from_str(&json).unwrap();
        assert_eq!(read.metadata.len(), METADATA_PAIRS_MAX + 1);
    }

    #[test]
    fn what_fits_is_read_as_before() {
        let read: PutOperation =
            serde_json::from_str(r#"{"metadata":{"a":"1","b":"2","a":"3"}}"#).unwrap();
        assert_eq!(read.metadata["a"], "3");
        assert_eq!(read.metadata.len(), 2);
    }
}
