//! The hello: first frame in both directions, before any request. Says which cluster, who speaks, and whom it means
//! to reach, so that two nodes whose addresses were swapped refuse each other instead of mixing their votes.
//!
//! ```text
//! client  8 magic | u8 protocol min | u8 protocol max | u8 lane | u8 0 | 16 cluster id | u64 sender | u64 target
//! server  the same; both protocol bytes are the version chosen, sender is the server, target the client (0: none)
//! ```
//!
//! Its layout never changes; what a later version adds stands behind it and is ignored by an earlier one. Knows
//! nothing of certificates: [`super::server`] and [`super::pool`] compare it with them.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{Lane, NodeId, RefusalCode};

const MAGIC: [u8; 8] = *b"scribe\x00\x02";
const HELLO_LENGTH: usize = 44;
/// Longest hello read: room for what later versions add.
pub(super) const HELLO_LENGTH_MAX: usize = 256;
/// Protocol byte of frames that carry a hello or a refusal, whatever is agreed on afterwards.
pub(super) const HELLO_PROTOCOL: u8 = 0;

/// One hello. In the server's, both protocol bounds are the version chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    pub protocol_min: u8,
    pub protocol_max: u8,
    pub lane: Lane,
    pub cluster_id: [u8; 16],
    pub sender: NodeId,
    pub target: NodeId,
}

impl Hello {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HELLO_LENGTH);
        out.put_slice(&MAGIC);
        out.put_u8(self.protocol_min);
        out.put_u8(self.protocol_max);
        out.put_u8(self.lane as u8);
        out.put_u8(0);
        out.put_slice(&self.cluster_id);
        out.put_u64(self.sender);
        out.put_u64(self.target);
        out.freeze()
    }

    pub fn parse(mut body: &[u8]) -> Result<Hello, (RefusalCode, String)> {
        if !body.starts_with(&MAGIC) {
            return Err((
                RefusalCode::WrongMagic,
                "this is not a scribe node's hello".to_owned(),
            ));
        }
        if body.len() < HELLO_LENGTH {
            return Err((
                RefusalCode::Malformed,
                format!(
                    "a hello has {HELLO_LENGTH} bytes, this one has {}",
                    body.len()
                ),
            ));
        }
        body.advance(MAGIC.len());
        let protocol_min = body.get_u8();
        let protocol_max = body.get_u8();
        let lane = body.get_u8();
        body.advance(1);
        let mut cluster_id = [0; 16];
        body.copy_to_slice(&mut cluster_id);
        let sender = body.get_u64();
        let target = body.get_u64();
        let Some(lane) = Lane::from_byte(lane) else {
            return Err((
                RefusalCode::NotAllowed,
                format!("there is no lane {lane}, allowed are 0 to 4"),
            ));
        };
        Ok(Hello {
            protocol_min,
            protocol_max,
            lane,
            cluster_id,
            sender,
            target,
        })
    }
}
