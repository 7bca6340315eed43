//! The bytes of a membership: in a membership frame, and in the footer of a sealed segment.
//!
//! ```text
//! membership   u8 version = 1 ‖ u8 configurations ‖ each: u16 voters ‖ voters x u64
//!              ‖ u16 nodes ‖ each: u64 id ‖ u16 length, Raft address ‖ u16 length, HTTP address
//! stored       u8 present ‖ [u64 term ‖ u64 log index] ‖ membership
//! ```
//! All integers are big-endian; nothing follows the last field. Two configurations mean a change under way (joint
//! consensus).

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use openraft::{LogId, Membership, StoredMembership};

use super::type_config::{CommittedLeaderId, NodeId, PeerAddress, leader_of};

const VERSION: u8 = 1;

/// Why bytes are not a membership.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The bytes end too early, or go on after the last field.
    #[error("a membership of {length} bytes does not hold its {what}")]
    Length {
        /// Bytes found.
        length: usize,
        /// What was read.
        what: &'static str,
    },
    /// A version this program does not know.
    #[error("membership version is {found}, allowed {VERSION}")]
    Version {
        /// Version found.
        found: u8,
    },
    /// Voters or nodes out of order, or there twice: a membership has one encoding.
    #[error("membership has {what} {found} after {last}, allowed are ascending ids")]
    Order {
        /// Voter or node.
        what: &'static str,
        /// The id before it.
        last: u64,
        /// The id found.
        found: u64,
    },
    /// Neither present nor absent.
    #[error("presence of a log id is {found}, allowed 0 and 1")]
    Presence {
        /// What was found.
        found: u8,
    },
    /// An address is not UTF-8, or openraft refuses the configuration.
    #[error("membership is not valid: {0}")]
    Invalid(String),
}

/// Encodes a membership.
pub fn encode(membership: &Membership<NodeId, PeerAddress>) -> Bytes {
    let mut out = BytesMut::new();
    encode_into(membership, &mut out);
    out.freeze()
}

/// Decodes a membership; every byte must be used.
pub fn decode(bytes: &[u8]) -> Result<Membership<NodeId, PeerAddress>, MembershipError> {
    let mut reader = Reader { bytes, at: 0 };
    let version = reader.u8("version")?;
    if version != VERSION {
        return Err(MembershipError::Version { found: version });
    }
    let mut configurations = Vec::new();
    for _ in 0..reader.u8("configuration count")? {
        let mut voters = BTreeSet::new();
        for _ in 0..reader.u16("voter count")? {
            let voter = reader.u64("voter")?;
            ascending("voter", voters.last().copied(), voter)?;
            voters.insert(voter);
        }
        configurations.push(voters);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..reader.u16("node count")? {
        let id = reader.u64("node id")?;
        ascending("node", nodes.keys().next_back().copied(), id)?;
        let raft_addr = reader.text("Raft address")?;
        let http_addr = reader.text("HTTP address")?;
        nodes.insert(
            id,
            PeerAddress {
                raft_addr,
                http_addr,
            },
        );
    }
    if reader.at != bytes.len() {
        return Err(MembershipError::Length {
            length: bytes.len(),
            what: "end",
        });
    }
    if configurations.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configurations, nodes)
        .map_err(|error| MembershipError::Invalid(error.to_string()))
}

/// Encodes a membership with the log id of the frame that set it.
pub fn encode_stored(stored: &StoredMembership<CommittedLeaderId, NodeId, PeerAddress>) -> Bytes {
    let mut out = BytesMut::new();
    match stored.log_id() {
        Some(id) => {
            out.put_u8(1);
            out.put_u64(id.leader_id.term);
            out.put_u64(id.index);
        }
        None => out.put_u8(0),
    }
    encode_into(stored.membership(), &mut out);
    out.freeze()
}

/// Decodes what [`encode_stored`] wrote; no bytes at all mean no membership yet.
pub fn decode_stored(
    bytes: &[u8],
) -> Result<StoredMembership<CommittedLeaderId, NodeId, PeerAddress>, MembershipError> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let mut reader = Reader { bytes, at: 0 };
    let log_id = match reader.u8("presence")? {
        0 => None,
        found @ 2.. => return Err(MembershipError::Presence { found }),
        1 => Some(LogId::new(
            leader_of(reader.u64("term")?),
            reader.u64("log index")?,
        )),
    };
    Ok(StoredMembership::new(log_id, decode(&bytes[reader.at..])?))
}

fn ascending(what: &'static str, last: Option<u64>, found: u64) -> Result<(), MembershipError> {
    match last {
        Some(last) if last >= found => Err(MembershipError::Order { what, last, found }),
        _ => Ok(()),
    }
}

fn encode_into(membership: &Membership<NodeId, PeerAddress>, out: &mut BytesMut) {
    out.put_u8(VERSION);
    out.put_u8(membership.get_joint_config().len() as u8);
    for voters in membership.get_joint_config() {
        out.put_u16(voters.len() as u16);
        for voter in voters {
            out.put_u64(*voter);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_u16(nodes.len() as u16);
    for (id, address) in nodes {
        out.put_u64(*id);
        for text in [&address.raft_addr, &address.http_addr] {
            out.put_u16(text.len() as u16);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], MembershipError> {
        let taken = self
            .bytes
            .get(self.at..self.at + N)
            .and_then(|slice| slice.try_into().ok())
            .ok_or(MembershipError::Length {
                length: self.bytes.len(),
                what,
            })?;
        self.at += N;
        Ok(taken)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, MembershipError> {
        Ok(self.take::<1>(what)?[0])
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, MembershipError> {
        Ok(u16::from_be_bytes(self.take(what)?))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, MembershipError> {
        Ok(u64::from_be_bytes(self.take(what)?))
    }

    fn text(&mut self, what: &'static str) -> Result<String, MembershipError> {
        let length = self.u16(what)? as usize;
        let slice = self
            .bytes
            .get(self.at..self.at + length)
            .ok_or(MembershipError::Length {
                length: self.bytes.len(),
                what,
            })?;
        self.at += length;
        String::from_utf8(slice.to_vec())
            .map_err(|_| MembershipError::Invalid(format!("{what} is not UTF-8")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StoredMembership<CommittedLeaderId, NodeId, PeerAddress> {
        let address = |n: u64| PeerAddress {
            raft_addr: format!("10.0.0.{n}:9001"),
            http_addr: format!("10.0.0.{n}:8001"),
        };
        let nodes: BTreeMap<_, _> = (1..=4).map(|n| (n, address(n))).collect();
        let configurations = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
        StoredMembership::new(
            Some(LogId::new(leader_of(5), 17)),
            Membership::new(configurations, nodes).unwrap(),
        )
    }

    #[test]
    fn a_membership_survives_the_round_trip() {
        assert_eq!(decode_stored(&encode_stored(&sample())).unwrap(), sample());
        let none = StoredMembership::default();
        assert_eq!(decode_stored(&encode_stored(&none)).unwrap(), none);
        assert_eq!(decode_stored(b"").unwrap(), none);
    }

    #[test]
    fn every_cut_is_refused() {
        let bytes = encode(sample().membership());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(decode(&longer).is_err(), "a byte too many");
    }

    #[test]
    fn a_membership_has_one_encoding() {
        let bytes = encode(sample().membership()).to_vec();
        // Version, configurations, count, and the first voters: 1, 2, 3.
        let voters = 4;
        for (from, to) in [(voters, voters + 8), (voters + 8, voters)] {
            let mut changed = bytes.clone();
            changed.copy_within(from..from + 8, to);
            let error = decode(&changed).unwrap_err();
            assert!(
                matches!(error, MembershipError::Order { what: "voter", .. }),
                "{error}"
            );
        }
        let mut stored = encode_stored(&sample()).to_vec();
        stored[0] = 2;
        let error = decode_stored(&stored).unwrap_err();
        assert_eq!(error, MembershipError::Presence { found: 2 });
    }
}
