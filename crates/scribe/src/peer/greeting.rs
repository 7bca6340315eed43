//! The handshake as the answering side sees it: TLS, then the other node's hello, then all the reasons to refuse.

use std::sync::Arc;
use std::time::Duration;

use super::net::TcpStream;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::{Receiving, Sending};
use super::frame::{
    Activity, FrameError, FrameReader, Header, PROTOCOL, PROTOCOL_MIN, Role, put_error,
};
use super::hello::{HELLO_LENGTH_MAX, HELLO_PROTOCOL, Hello};
use super::pki::PeerName;
use super::server::Shared;
use super::{Lane, NodeId, RefusalCode, Security, tls};

/// How long a refused node may take to read why.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection whose other end is known.
pub(super) struct Greeted {
    pub reader: FrameReader<Receiving>,
    pub writer: Sending,
    /// `None` only on the join lane.
    pub sender: Option<NodeId>,
    pub lane: Lane,
}

/// A connection that is not wanted.
pub(super) struct Refused {
    pub code: RefusalCode,
    pub text: String,
    /// Where to say so, if the other side got far enough to understand it.
    io: Option<(FrameReader<Receiving>, Sending)>,
}

impl Refused {
    /// Nothing can be said to it.
    pub fn silently(code: RefusalCode) -> Refused {
        Refused {
            code,
            text: String::new(),
            io: None,
        }
    }

    /// Sends the reason, and gives the other side a moment to read it.
    pub async fn say_goodbye(self, closed: &CancellationToken) {
        let Some((mut reader, mut writer)) = self.io else {
            return;
        };
        let body = put_error(self.code as u16, &self.text);
        let goodbye = async {
            writer.write_all(&greeting(Role::Refusal, &body)).await?;
            writer.shutdown().await?;
            reader.linger().await;
            std::io::Result::Ok(())
        };
        tokio::select! {
            biased;
            () = closed.cancelled() => {}
            // Whether it was read is not this side's concern.
            _ = timeout(GOODBYE, goodbye) => {}
        }
    }
}

/// A frame of the handshake.
fn greeting(role: Role, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    let mut header = Header::new(role, 0, 0, body.len());
    header.protocol = HELLO_PROTOCOL;
    header.put(&mut out);
    out.extend_from_slice(body);
    out.freeze()
}

pub(super) async fn greet(
    stream: TcpStream,
    activity: Arc<Activity>,
    shared: &Shared,
    id: u64,
) -> Result<Greeted, Refused> {
    let options = &shared.options;
    let (receiving, sending, certificate): (Receiving, Sending, Option<Bytes>) =
        match &options.security {
            Security::Plain => {
                let (receiving, sending) = stream.into_split();
                (Box::new(receiving), Box::new(sending), None)
            }
            Security::Tls(identity) => {
                let stream = tokio_rustls::TlsAcceptor::from(identity.server())
                    .accept(stream)
                    .await
                    .map_err(broken)?;
                let certificate = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .and_then(|chain| chain.first())
                    .map(|certificate| Bytes::copy_from_slice(certificate));
                let (receiving, sending) = tokio::io::split(stream);
                (Box::new(receiving), Box::new(sending), certificate)
            }
        };
    let mut reader = FrameReader::new(receiving, activity, &options.timeouts);
    let hello = match read_hello(&mut reader).await {
        Ok(hello) => hello,
        Err(FrameError::Io(error)) => return Err(broken(error)),
        Err(error) => {
            return Err(Refused {
                code: RefusalCode::Malformed,
                text: error.to_string(),
                io: None,
            });
        }
    };
    let judged = Hello::parse(&hello).and_then(|hello| {
        let sender = judge(&hello, certificate.as_deref(), shared)?;
        shared.admit(id, sender)?;
        // Again, now that `Server::let_go` would find it: it may have been removed in between.
        if let Some(sender) = sender {
            shared.handler.admit(sender)?;
        }
        Ok((hello, sender))
    });
    let (hello, sender) = match judged {
        Ok(judged) => judged,
        Err((code, text)) => {
            return Err(Refused {
                code,
                text,
                io: Some((reader, sending)),
            });
        }
    };
    let protocol = hello.protocol_max.min(PROTOCOL);
    let answer = Hello {
        protocol_min: protocol,
        protocol_max: protocol,
        lane: hello.lane,
        cluster_id: options.cluster_id,
        sender: options.node_id,
        target: hello.sender,
    };
    let mut writer = sending;
    let sent = async {
        writer
            .write_all(&greeting(Role::Hello, &answer.encode()))
            .await?;
        writer.flush().await
    };
    sent.await.map_err(broken)?;
    Ok(Greeted {
        reader,
        writer,
        sender,
        lane: hello.lane,
    })
}

fn broken(error: std::io::Error) -> Refused {
    let (code, text) =
        tls::refusal(&error).unwrap_or_else(|| (RefusalCode::Malformed, error.to_string()));
    Refused {
        code,
        text,
        io: None,
    }
}

async fn read_hello(reader: &mut FrameReader<Receiving>) -> Result<Bytes, FrameError> {
    let header = reader.header().await?;
    if header.role != Role::Hello {
        return Err(FrameError::Malformed("the first frame is no hello"));
    }
    reader.body(&header, HELLO_LENGTH_MAX, || ()).await
}

/// Who it is, if it may be here at all.
fn judge(
    hello: &Hello,
    certificate: Option<&[u8]>,
    shared: &Shared,
) -> Result<Option<NodeId>, (RefusalCode, String)> {
    let options = &shared.options;
    if hello.protocol_min > PROTOCOL || hello.protocol_max < PROTOCOL_MIN {
        return Err((
            RefusalCode::Protocol,
            format!(
                "no protocol in common: {} to {} asked, allowed are {PROTOCOL_MIN} to {PROTOCOL}",
                hello.protocol_min, hello.protocol_max
            ),
        ));
    }
    // A node that joins knows an address and nothing else.
    let joining = hello.lane == Lane::Join;
    // The certificate first: a stranger learns nothing about this node.
    let wrong = |text: String| (RefusalCode::Certificate, text);
    let sender = match (&options.security, certificate) {
        (Security::Plain, _) => (!joining || hello.sender != 0).then_some(hello.sender),
        (Security::Tls(_), Some(certificate)) => {
            let name =
                PeerName::of_certificate(certificate).map_err(|error| wrong(error.to_string()))?;
            if name.cluster_id != options.cluster_id {
                return Err(wrong(format!("the certificate is for {}", name.uri())));
            }
            if name.node_id != hello.sender {
                return Err(wrong(format!(
                    "node {} was named, the certificate is for node {}",
                    hello.sender, name.node_id
                )));
            }
            Some(name.node_id)
        }
        (Security::Tls(_), None) if joining => None,
        (Security::Tls(_), None) => {
            return Err(wrong(
                "a certificate is needed on every lane but the join lane".to_owned(),
            ));
        }
    };
    if hello.cluster_id != options.cluster_id && !(joining && hello.cluster_id == [0; 16]) {
        return Err((
            RefusalCode::WrongCluster,
            "this node belongs to another cluster".to_owned(),
        ));
    }
    if hello.target != options.node_id && !(joining && hello.target == 0) {
        return Err((
            RefusalCode::WrongTarget,
            format!(
                "this is node {}, node {} was meant",
                options.node_id, hello.target
            ),
        ));
    }
    if let Some(sender) = sender {
        shared.handler.admit(sender)?;
    }
    Ok(sender)
}
