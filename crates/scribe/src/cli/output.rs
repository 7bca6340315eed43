//! What a command prints and how it ends: data on stdout, talk on stderr, four exit codes.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use scribe_client::TransportError;
use serde::Serialize;

use crate::cluster::files::FilesError;
use crate::cluster::join::JoinError;
use crate::config::ConfigError;
use crate::keys::KeyError;
use crate::peer::TokenError;
use crate::store::error::StoreError;

/// What to do when no node answers.
pub const NO_NODE_HINT: &str =
    "is it running? `scribe` starts one; --server or SCRIBE_SERVER names another";

/// What to do when a node's certificate is not believed.
const CERTIFICATE_HINT: &str = "--cacert FILE or SCRIBE_CACERT names the certificate of the CA that vouches for the node; \
                                the certificate must also be in date and name the host in the URL";

/// How a command prints its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// How a command failed. The numbers are the exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The reader of stdout went away, which is no failure of ours (`scribe list | head`).
    Pipe = 0,
    /// The request, a setting or a file is wrong; doing the same again fails again.
    User = 1,
    /// Something else failed: the network, the node, the disk.
    Unexpected = 2,
    /// Something was checked and does not hold.
    Verification = 3,
}

/// Why a command ends early: a message, next steps and an exit code.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub exit: Exit,
    /// The rule, the value found, the value allowed.
    pub message: String,
    /// Next steps.
    pub hints: Vec<String>,
}

impl Failure {
    /// A mistake of the user's.
    pub fn user(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::User,
            message: message.into(),
            hints: Vec::new(),
        }
    }

    /// A failure of the network, the node or the disk.
    pub fn unexpected(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Unexpected,
            message: message.into(),
            hints: Vec::new(),
        }
    }

    /// Something that was checked does not hold.
    pub fn verification(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Verification,
            message: message.into(),
            hints: Vec::new(),
        }
    }

    /// The same failure with a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    fn maybe_hint(mut self, hint: Option<String>) -> Failure {
        self.hints.extend(hint);
        self
    }

    /// A file that cannot be read or written; a missing one is the user's mistake.
    pub fn file(what: &str, path: &std::path::Path, error: &io::Error) -> Failure {
        let message = format!("cannot {what} `{}`: {error}", path.display());
        match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidData => Failure::user(message),
            _ => Failure::unexpected(message),
        }
    }

    /// Tells the user on stderr.
    pub fn report(&self) {
        if self.exit == Exit::Pipe {
            return;
        }
        // Nothing can be done about a stderr that is closed.
        let mut stderr = io::stderr().lock();
        let _ = writeln!(stderr, "error: {}", self.message);
        for hint in &self.hints {
            let _ = writeln!(stderr, "hint: {hint}");
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::user(error.to_string()).maybe_hint(error.hint())
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Failure {
        let exit = match &error {
            KeyError::Random { .. } => Exit::Unexpected,
            KeyError::Io { error, .. } => match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::AlreadyExists => Exit::User,
                _ => Exit::Unexpected,
            },
            _ => Exit::User,
        };
        Failure {
            exit,
            message: error.to_string(),
            hints: error.hint().into_iter().collect(),
        }
    }
}

impl From<FilesError> for Failure {
    fn from(error: FilesError) -> Failure {
        match error {
            FilesError::Key(error) => error.into(),
            FilesError::Exists { .. } => Failure::user(error.to_string()),
            other => Failure::unexpected(other.to_string()),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Failure {
        let hint = error.hint().map(str::to_owned);
        match error {
            JoinError::Files(error) => error.into(),
            JoinError::Refused(message) => Failure::user(message).maybe_hint(hint),
            other => Failure::unexpected(other.to_string()).maybe_hint(hint),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Failure {
        let hint = error.hint().map(str::to_owned);
        Failure::user(error.to_string()).maybe_hint(hint)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        // Its message carries its next step on a line of its own.
        let message = error.to_string();
        let (rule, hint) = match message.split_once("\nhint: ") {
            Some((rule, hint)) => (rule, Some(hint.to_owned())),
            None => (message.as_str(), None),
        };
        Failure::unexpected(rule).maybe_hint(hint)
    }
}

impl From<scribe_client::Error> for Failure {
    fn from(error: scribe_client::Error) -> Failure {
        use scribe_client::Error;
        match error {
            Error::Server(problem) => {
                let exit = match problem.status {
                    400..500 => Exit::User,
                    _ => Exit::Unexpected,
                };
                let message = format!("{} ({})", problem.detail, problem.code);
                Failure {
                    exit,
                    message,
                    hints: problem.hint.into_iter().collect(),
                }
            }
            Error::Transport(error) => {
                Failure::unexpected(error.to_string()).maybe_hint(transport_hint(&error))
            }
            Error::Verification(error) => {
                Failure::verification(format!("verification failed: {error}"))
            }
            Error::InvalidArgument(message) => Failure::user(message),
            Error::OutcomeUnknown {
                idempotency_key,
                last,
            } => {
                let failure = Failure::unexpected(format!(
                    "the outcome is unknown, it may have been appended: {last}"
                ));
                match idempotency_key {
                    Some(key) => failure.hint(format!(
                        "run it again with --idempotency-key {key}: it will not be appended twice"
                    )),
                    None => failure.hint("read the key's history before you try again"),
                }
            }
            other => Failure::unexpected(other.to_string()),
        }
    }
}

/// What to do about a connection that failed in this way.
fn transport_hint(error: &TransportError) -> Option<String> {
    let hint = match error {
        TransportError::Connect(_) => NO_NODE_HINT,
        TransportError::Certificate(_) => CERTIFICATE_HINT,
        TransportError::TimedOut { .. } => {
            "it runs and is busy, or stands still: its log says more, `scribe cluster status` of another node may too"
        }
        TransportError::Broken(_) => {
            "it may have been stopped, or something in between gave up: try again"
        }
        // A kind that a newer client knows.
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Where a command puts its data.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Prints in this format.
    pub fn new(format: Format) -> Output {
        Output { format }
    }

    /// Whether programs read along.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints one datum: `text` for people, `json` as one line for programs.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn print(self, text: impl Display, json: &impl Serialize) -> Result<(), Failure> {
        let mut line = match self.format {
            Format::Text => text.to_string(),
            Format::Json => serde_json::to_string(json)
                .map_err(|error| Failure::unexpected(format!("cannot write JSON: {error}")))?,
        };
        if !line.ends_with('\n') {
            line.push('\n');
        }
        print_raw(line.as_bytes())
    }
}

/// Writes bytes to stdout as they are.
///
/// # Errors
/// Stdout cannot be written; a reader that went away ends the command quietly.
pub fn print_raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| {
            let exit = match error.kind() {
                io::ErrorKind::BrokenPipe => Exit::Pipe,
                _ => Exit::Unexpected,
            };
            Failure {
                exit,
                message: format!("cannot write to stdout: {error}"),
                hints: Vec::new(),
            }
        })
}

/// Tells the user something that is not data.
pub fn say(message: impl Display) {
    // Nothing can be done about a stderr that is closed.
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// A progress bar on stderr; nothing when stderr is no terminal. `total` is unknown for a pipe.
pub fn progress(total: Option<u64>, unit: ProgressUnit) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    if !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = match (unit, total.is_some()) {
        (ProgressUnit::Bytes, true) => {
            "{bar:32} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {msg}"
        }
        (ProgressUnit::Bytes, false) => "{spinner} {bytes}  {bytes_per_sec}  {msg}",
        (ProgressUnit::Entries, true) => {
            "{bar:32} {human_pos} of {human_len} entries  {per_sec}  {eta} left  {msg}"
        }
        (ProgressUnit::Entries, false) => "{spinner} {human_pos} entries  {per_sec}  {msg}",
    };
    // The templates above are constant and valid; the default bar is a fine second best.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// What a progress bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressUnit {
    /// Bytes.
    Bytes,
    /// Entries.
    Entries,
}

/// A key as people read it: text where it is printable, `base64:…` otherwise.
pub fn show_key(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) && !text.starts_with("base64:") => {
            text.to_owned()
        }
        _ => format!("base64:{}", scribe_client::wire::bytes::to_base64(key)),
    }
}

/// Milliseconds since 1970 as RFC 3339 in UTC; the plain number if the calendar cannot hold it.
pub fn show_time(timestamp_ms: u64) -> String {
    i64::try_from(timestamp_ms)
        .ok()
        .and_then(|milliseconds| jiff::Timestamp::from_millisecond(milliseconds).ok())
        .map_or_else(|| format!("{timestamp_ms} ms"), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_so_that_they_can_be_told_apart() {
        assert_eq!(show_key(b"config/a b"), "config/a b");
        assert_eq!(show_key("\u{1f980}".as_bytes()), "\u{1f980}");
        assert_eq!(show_key(b"a\nb"), "base64:YQpi");
        assert_eq!(show_key(b"\xff"), "base64:/w==");
        assert_eq!(show_key(b"base64:YQ=="), "base64:YmFzZTY0OllRPT0=");
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(show_time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(show_time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(show_time(u64::MAX), "18446744073709551615 ms");
    }

    #[test]
    fn a_connection_that_stood_is_not_asked_whether_the_node_runs() {
        let check = |error: TransportError, says: &str, hints: &str| {
            let failure = Failure::from(scribe_client::Error::Transport(error));
            assert_eq!(failure.exit, Exit::Unexpected);
            assert!(failure.message.contains(says), "{failure:?}");
            assert!(failure.hints.concat().contains(hints), "{failure:?}");
            failure.hints.concat().contains("is it running?")
        };
        let text = || "refused".to_owned();
        assert!(check(
            TransportError::Connect(text()),
            "cannot reach the node: refused",
            "--server"
        ));
        let timeout_ms = 12_000;
        let silent = TransportError::TimedOut { timeout_ms };
        assert!(!check(
            silent,
            "did not answer within 12000 ms",
            "its log says more"
        ));
        assert!(!check(
            TransportError::Broken(text()),
            "broke: refused",
            "try again"
        ));
        let disbelieved = TransportError::Certificate(text());
        assert!(!check(
            disbelieved,
            "certificate is not believed: refused",
            "--cacert"
        ));
    }
}
