//! One HTTP/1.1 connection of the load generator.
//!
//! It understands just what it takes to find the end of an answer: the status, `content-length`, `transfer-encoding:
//! chunked` and `connection: close`. Bodies are skipped; the last bytes are kept for messages.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http::TlsTarget;

/// Bytes read from the socket at once.
const BUFFER_LENGTH: usize = 32 * 1_024;
/// Longest answer head.
const HEAD_LENGTH_MAX: usize = 16 * 1_024;
/// Bytes kept from the end of an answer's body.
const TAIL_LENGTH: usize = 512;
/// Requests above this are written while the answer is read, so that neither side can wait for the other.
const WRITE_ALONE_MAX: usize = 64 * 1_024;

/// Where to connect to, and how.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// `None` for plain HTTP.
    pub(super) tls: Option<TlsTarget>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A connection that is kept alive.
pub(super) struct Connection {
    reader: Reader,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
}

struct Reader {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    buffer: Box<[u8]>,
    /// Unread bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    tail: Vec<u8>,
}

/// What an answer's head says about its body.
struct Head {
    status: u16,
    length: Body,
    close: bool,
}

#[derive(Clone, Copy)]
enum Body {
    Length(u64),
    Chunked,
}

impl Connection {
    /// Connects, with small packets sent at once.
    pub(super) async fn open(target: &Target) -> io::Result<Connection> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let (stream, writer): (
            Box<dyn AsyncRead + Send + Unpin>,
            Box<dyn AsyncWrite + Send + Unpin>,
        ) = match &target.tls {
            Some(tls) => {
                let (stream, writer) = tokio::io::split(tls.connect(stream).await?);
                (Box::new(stream), Box::new(writer))
            }
            None => {
                let (stream, writer) = stream.into_split();
                (Box::new(stream), Box::new(writer))
            }
        };
        let buffer = vec![0; BUFFER_LENGTH].into_boxed_slice();
        let reader = Reader {
            stream,
            buffer,
            start: 0,
            end: 0,
            tail: Vec::new(),
        };
        Ok(Connection { reader, writer })
    }

    /// Sends a complete request and reads the whole answer; returns its status. With `keep_tail`, and always for a
    /// refusal, [`Connection::tail`] then has the end of the body.
    pub(super) async fn exchange(&mut self, request: &[u8], keep_tail: bool) -> io::Result<u16> {
        let (status, close) = if request.len() <= WRITE_ALONE_MAX {
            self.writer.write_all(request).await?;
            self.writer.flush().await?;
            self.reader.answer(keep_tail).await?
        } else {
            let (writer, reader) = (&mut self.writer, &mut self.reader);
            let write = async {
                writer.write_all(request).await?;
                writer.flush().await
            };
            let (written, answered) = tokio::join!(write, reader.answer(keep_tail));
            // A server that refuses early may close before everything was written; its answer says more.
            let answer = answered?;
            written?;
            answer
        };
        if close && (200..300).contains(&status) {
            return Err(io::Error::other(
                "the server does not keep connections alive",
            ));
        }
        Ok(status)
    }

    /// The last bytes of the last answer's body.
    pub(super) fn tail(&self) -> &[u8] {
        &self.reader.tail
    }
}

impl Reader {
    async fn answer(&mut self, keep_tail: bool) -> io::Result<(u16, bool)> {
        self.tail.clear();
        let head = loop {
            let head = self.head().await?;
            // 100 Continue and its like are followed by the real answer.
            if head.status >= 200 {
                break head;
            }
        };
        let keep = keep_tail || head.status >= 300;
        match head.length {
            Body::Length(length) => self.skip(length, keep).await?,
            Body::Chunked => loop {
                let line = self.line().await?;
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let length = std::str::from_utf8(digits)
                    .ok()
                    .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
                    .ok_or_else(|| malformed("chunk length"))?;
                if length == 0 {
                    while !self.line().await?.is_empty() {}
                    break;
                }
                self.skip(length, keep).await?;
                if !self.line().await?.is_empty() {
                    return Err(malformed("end of chunk"));
                }
            },
        }
        Ok((head.status, head.close))
    }

    /// Reads an answer's head.
    async fn head(&mut self) -> io::Result<Head> {
        let mut searched = 0;
        let length = loop {
            let unread = &self.buffer[self.start..self.end];
            let from = searched.min(unread.len());
            if let Some(at) = unread[from..]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break from + at + 4;
            }
            searched = unread.len().saturating_sub(3);
            if unread.len() >= HEAD_LENGTH_MAX {
                return Err(malformed("head"));
            }
            self.fill().await?;
        };
        let head = parse_head(&self.buffer[self.start..self.start + length])?;
        self.start += length;
        Ok(head)
    }

    /// Reads a line of at most the buffer's length, without its end.
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = unread.iter().position(|byte| *byte == b'\n') {
                let line = unread[..at]
                    .strip_suffix(b"\r")
                    .unwrap_or(&unread[..at])
                    .to_vec();
                self.start += at + 1;
                return Ok(line);
            }
            if unread.len() >= HEAD_LENGTH_MAX {
                return Err(malformed("line"));
            }
            self.fill().await?;
        }
    }

    async fn skip(&mut self, mut length: u64, keep_tail: bool) -> io::Result<()> {
        while length > 0 {
            if self.start == self.end {
                self.fill().await?;
            }
            let here = (self.end - self.start).min(usize::try_from(length).unwrap_or(usize::MAX));
            if keep_tail {
                let bytes = &self.buffer[self.start..self.start + here];
                self.tail
                    .extend_from_slice(&bytes[here.saturating_sub(TAIL_LENGTH)..]);
                let excess = self.tail.len().saturating_sub(TAIL_LENGTH);
                self.tail.drain(..excess);
            }
            self.start += here;
            length -= here as u64;
        }
        Ok(())
    }

    /// Reads more bytes; the unread ones move to the front when there is no room behind them.
    async fn fill(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        match self.stream.read(&mut self.buffer[self.end..]).await? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection",
            )),
            read => {
                self.end += read;
                Ok(())
            }
        }
    }
}

fn parse_head(head: &[u8]) -> io::Result<Head> {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status = lines
        .next()
        .filter(|line| line.starts_with(b"HTTP/1."))
        .and_then(|line| line.get(9..12))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| malformed("status line"))?;
    let mut length = match status {
        100..200 | 204 | 304 => Some(Body::Length(0)),
        _ => None,
    };
    let mut close = false;
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
            length = Some(Body::Length(
                number.ok_or_else(|| malformed("content-length"))?,
            ));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding")
            && value.eq_ignore_ascii_case(b"chunked")
        {
            length = Some(Body::Chunked);
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            close = true;
        }
    }
    let length = length.ok_or_else(|| malformed("body: neither content-length nor chunked"))?;
    Ok(Head {
        status,
        length,
        close,
    })
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the answer has a malformed {what}"),
    )
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Sends `pieces` as they are, each flushed, for one request; returns what the connection makes of them.
    async fn answer_to(pieces: &'static [&'static str]) -> (io::Result<u16>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4];
            stream.read_exact(&mut request).await.unwrap();
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let target = Target { address, tls: None };
        let mut connection = Connection::open(&target).await.unwrap();
        let status = connection.exchange(b"ping", true).await;
        server.await.unwrap();
        (status, connection.tail().to_vec())
    }

    #[tokio::test]
    async fn answers_end_where_they_say() {
        let (status, tail) = answer_to(&[
            "HTTP/1.1 201 Cre",
            "ated\r\nContent-Length: 5\r",
            "\n\r\nhel",
            "lo",
        ])
        .await;
        assert_eq!((status.unwrap(), tail.as_slice()), (201, &b"hello"[..]));

        let (status, tail) = answer_to(&[
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "5\r\nhel",
            "lo\r\n6;x=y\r\n world\r\n0\r\n\r\n",
        ])
        .await;
        assert_eq!(
            (status.unwrap(), tail.as_slice()),
            (200, &b"hello world"[..])
        );
    }

    #[tokio::test]
    async fn broken_answers_are_errors() {
        for pieces in [
            &["nonsense\r\n\r\n"][..],
            &["HTTP/1.1 200 OK\r\n\r\n"],
            &["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"],
            &["HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"],
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"],
            &["HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"],
            &[],
        ] {
            assert!(answer_to(pieces).await.0.is_err(), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn only_the_end_of_a_long_body_is_kept() {
        let (status, tail) = answer_to(Box::leak(Box::new([
            "HTTP/1.1 400 Bad\r\ncontent-length: 2000\r\n\r\n",
            Box::leak("x".repeat(1_990).into_boxed_str()),
            "0123456789",
        ])))
        .await;
        assert_eq!((status.unwrap(), tail.len()), (400, TAIL_LENGTH));
        assert!(tail.ends_with(b"x0123456789"));
    }
}
