//! Settings: flag > `SCRIBE_*` > `scribe.toml` > default.
//!
//! [`SETTINGS`] is the one list of what can be set: the parser, the environment names, the sample file, the check
//! for unknown keys and `scribe check-config` all read it. [`resolve`] turns the four sources into one [`Config`]
//! that the rest of the program uses; nothing else reads the environment or the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use scribe_client::witness::WitnessAddress;

use crate::limits;
use crate::peer::JoinToken;
use crate::units::{self, UnitError};

mod settings;

pub use settings::{Kind, SETTINGS, Setting};

/// Name of the settings file that is read from the working directory when none is named.
pub const FILE_NAME: &str = "scribe.toml";

/// Largest settings file that is read. The sample is 7 KiB.
const FILE_LENGTH_MAX: u64 = 1 << 20;

/// Variables of the command line tool that are not settings of the node.
const OTHER_VARIABLES: [&str; 4] = [
    "SCRIBE_SERVER",
    "SCRIBE_CACERT",
    "SCRIBE_OUTPUT",
    "SCRIBE_CONFIG",
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A command line flag.
    Flag,
    /// An environment variable.
    Environment,
    /// The settings file.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

/// One setting with the value that won and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Name of the setting.
    pub name: &'static str,
    /// Its value in the form a user would write it.
    pub value: String,
    /// Who set it.
    pub source: Source,
}

impl Resolved {
    /// Who set it, in words: `flag --data-dir`, `SCRIBE_DATA_DIR`, `scribe.toml`, `default`.
    pub fn source_text(&self) -> String {
        match (&self.source, find(self.name)) {
            (Source::Flag, Some(setting)) => format!("flag {}", setting.flag),
            (Source::Environment, Some(setting)) => setting.variable(),
            (Source::File(path), _) => path.display().to_string(),
            _ => "default".to_owned(),
        }
    }
}

/// The settings a node runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the ledger is stored.
    pub data_dir: PathBuf,
    /// Where keys and the last signed head are.
    pub key_dir: PathBuf,
    /// Where the HTTP API listens.
    pub http_addr: SocketAddr,
    /// Where clients reach the HTTP API; `None`: where it listens.
    pub http_advertise_addr: Option<String>,
    /// Where other nodes reach this one.
    pub raft_addr: String,
    /// Where this node listens for others; `None`: at `raft_addr`.
    pub raft_listen: Option<String>,
    /// Whether nodes talk to each other without TLS.
    pub raft_plaintext: bool,
    /// Whether other machines may reach the HTTP API, which has no authentication.
    pub insecure: bool,
    /// Files with the certificate chain and the private key of the HTTP API; `None`: plain HTTP.
    pub http_tls: Option<(PathBuf, PathBuf)>,
    /// Token to join a cluster with, or the path of a file that holds it.
    pub join: Option<String>,
    /// Whether this node never asks to become a voter.
    pub learner: bool,
    /// Log entries received and not applied beyond which the node is not ready.
    pub ready_lag_max: u64,
    /// How often a leader says that it is there.
    pub heartbeat_interval_ms: u64,
    /// Shortest silence after which another leader is elected.
    pub election_timeout_min_ms: u64,
    /// Longest such silence.
    pub election_timeout_max_ms: u64,
    /// How long connecting to another node may take, for each of its addresses.
    pub peer_connect_ms: u64,
    /// How long another node may take to answer a small request.
    pub peer_request_ms: u64,
    /// How long entries or segments on their way may stand still.
    pub peer_progress_ms: u64,
    /// How fast sealed segments are fetched from other nodes; 0: no limit.
    pub snapshot_bytes_per_second: u64,
    /// Name of a new ledger; `None`: made from the key.
    pub origin: Option<String>,
    /// Longest value accepted, in bytes.
    pub value_length_max: usize,
    /// How often a checkpoint is signed while there are new entries.
    pub publish_interval_ms: u64,
    /// Outside witnesses that are asked to cosign checkpoints.
    pub witnesses: Vec<WitnessAddress>,
    /// Free disk space below which writes are refused.
    pub disk_reserve_bytes: u64,
    /// Memory for the key index.
    pub index_cache_bytes: u64,
    /// Memory for entries read often.
    pub entry_cache_bytes: u64,
    /// Bytes the scrubber reads per second; 0: off.
    pub scrub_bytes_per_second: u64,
    /// Log filter.
    pub log: String,
    /// Every setting with its source, in the order of [`SETTINGS`].
    pub resolved: Vec<Resolved>,
    /// The settings file that was read.
    pub file: Option<PathBuf>,
    /// `SCRIBE_*` variables that mean nothing, each as a complete message.
    pub warnings: Vec<String>,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file has a key that does not exist.
    #[error("unknown setting `{key}` in `{}`", path.display())]
    UnknownKey {
        /// Settings file.
        path: PathBuf,
        /// Key found.
        key: String,
        /// Known key that looks most like it.
        closest: &'static str,
    },
    /// A value breaks its setting's rule.
    #[error("invalid `{name}` from {from}: found `{value}`, but {rule}")]
    Invalid {
        /// Setting.
        name: &'static str,
        /// Flag, variable or file it came from.
        from: String,
        /// Text found.
        value: String,
        /// What is allowed.
        rule: String,
    },
    /// The file is not TOML.
    #[error("cannot parse settings file `{}`: {message}", path.display())]
    Syntax {
        /// Settings file.
        path: PathBuf,
        /// What the parser said.
        message: String,
    },
    /// The file cannot be read.
    #[error("cannot read settings file `{}`: {message}", path.display())]
    Read {
        /// Settings file.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// The HTTP address is reachable by other machines and nobody said that this is wanted.
    #[error(
        "http_addr must be a loopback address while there is no authentication{}: found `{found}`, allowed \
         127.0.0.1 or [::1]",
        if *encrypted { " (TLS keeps others from listening, not from asking)" } else { "" }
    )]
    Exposed {
        /// Address found.
        found: SocketAddr,
        /// Whether there is a certificate.
        encrypted: bool,
    },
    /// There are no keys where the ledger's should be.
    #[error("no ledger key in `{}`", path.display())]
    NoKeys {
        /// Key directory.
        path: PathBuf,
    },
}

impl ConfigError {
    /// A next step for the user, when there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { closest, .. } => Some(format!(
                "did you mean `{closest}`? `scribe check-config` lists every setting"
            )),
            Self::Exposed { .. } => Some(
                "whoever reaches the port can read every value, write and delete any key, and fill the disk (change the \
                 cluster only from this machine): pass --insecure if that is wanted"
                    .to_owned(),
            ),
            Self::NoKeys { .. } => Some("--key-dir names the directory of its keys".to_owned()),
            _ => None,
        }
    }
}

/// Values given on the command line, by setting name.
pub type Flags = BTreeMap<&'static str, String>;

/// Settings of the process: flags, its environment, and the named file or `./scribe.toml` if that exists.
///
/// # Errors
/// Unknown keys in the file, values that break their rule, a named file that cannot be read.
pub fn load(flags: &Flags, file: Option<&Path>) -> Result<Config, ConfigError> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("SCRIBE_"))
        .collect();
    let named = file.map(Path::to_path_buf);
    let default = Path::new(FILE_NAME);
    match named.or_else(|| default.exists().then(|| default.to_path_buf())) {
        Some(path) => {
            let text = read_file(&path)?;
            resolve(flags, &variables, Some((&path, &text)))
        }
        None => resolve(flags, &variables, None),
    }
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |message: String| ConfigError::Read {
        path: path.to_path_buf(),
        message,
    };
    let length = std::fs::metadata(path)
        .map_err(|error| unreadable(error.to_string()))?
        .len();
    if length > FILE_LENGTH_MAX {
        return Err(unreadable(format!(
            "{length} bytes long, allowed {FILE_LENGTH_MAX}"
        )));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

/// The pure part of [`load`]: `variables` are the `SCRIBE_*` ones, `file` is a path and its text.
///
/// # Errors
/// As [`load`].
pub fn resolve(
    flags: &Flags,
    variables: &BTreeMap<String, String>,
    file: Option<(&Path, &str)>,
) -> Result<Config, ConfigError> {
    let from_file = match file {
        Some((path, text)) => parse_file(path, text)?,
        None => BTreeMap::new(),
    };
    let mut resolved = Vec::with_capacity(SETTINGS.len());
    for setting in SETTINGS {
        let (value, source) = if let Some(value) = flags.get(setting.name) {
            (value.clone(), Source::Flag)
        } else if let Some(value) = variables.get(&setting.variable()) {
            (value.clone(), Source::Environment)
        } else if let (Some(value), Some((path, _))) = (from_file.get(setting.name), file) {
            (value.clone(), Source::File(path.to_path_buf()))
        } else {
            (setting.default.to_owned(), Source::Default)
        };
        resolved.push(Resolved {
            name: setting.name,
            value,
            source,
        });
    }
    let mut values = Values { resolved };
    let config = Config {
        data_dir: values.path("data_dir")?,
        key_dir: values.path("key_dir")?,
        http_addr: values.socket_address("http_addr")?,
        http_advertise_addr: values.optional_address("http_advertise_addr")?,
        raft_addr: values.address("raft_addr")?,
        raft_listen: values.optional_address("raft_listen")?,
        raft_plaintext: values.flag("raft_plaintext")?,
        insecure: values.flag("insecure")?,
        http_tls: values.both_paths("http_tls_cert", "http_tls_key")?,
        join: values.secret("join"),
        learner: values.flag("learner")?,
        ready_lag_max: values.number("ready_lag_max")?,
        heartbeat_interval_ms: values.number("heartbeat_interval")?,
        election_timeout_min_ms: values.election_timeout_min()?,
        election_timeout_max_ms: values.election_timeout_max()?,
        peer_connect_ms: values.number("peer_connect_timeout")?,
        peer_request_ms: values.number("peer_request_timeout")?,
        peer_progress_ms: values.number("peer_progress_timeout")?,
        snapshot_bytes_per_second: values.number("snapshot_bytes_per_second")?,
        origin: values.origin()?,
        value_length_max: usize::try_from(values.number("value_length_max")?)
            .unwrap_or(limits::VALUE_LENGTH_CEILING),
        publish_interval_ms: values.number("publish_interval")?,
        witnesses: values.witnesses()?,
        disk_reserve_bytes: values.number("disk_reserve")?,
        index_cache_bytes: values.number("index_cache")?,
        entry_cache_bytes: values.number("entry_cache")?,
        scrub_bytes_per_second: values.number("scrub_rate")?,
        log: values.text("log").to_owned(),
        resolved: values.resolved,
        file: file.map(|(path, _)| path.to_path_buf()),
        warnings: unknown_variables(variables),
    };
    Ok(config)
}

impl Config {
    /// Refuses an HTTP address that other machines can reach, unless `insecure` says that this is wanted. A certificate
    /// does not make up for it: it says who the node is, not who may write.
    ///
    /// # Errors
    /// [`ConfigError::Exposed`].
    pub fn check_exposure(&self) -> Result<(), ConfigError> {
        if self.http_addr.ip().is_loopback() || self.insecure {
            return Ok(());
        }
        Err(ConfigError::Exposed {
            found: self.http_addr,
            encrypted: self.http_tls.is_some(),
        })
    }
}

impl Config {
    /// Refuses a key directory without a ledger key, for commands that only look: a node would make new keys, which
    /// do not belong to the ledger.
    ///
    /// # Errors
    /// [`ConfigError::NoKeys`].
    pub fn expect_keys(&self) -> Result<(), ConfigError> {
        if self.key_dir.join(crate::keys::LEDGER_KEY_FILE).exists() {
            return Ok(());
        }
        Err(ConfigError::NoKeys {
            path: self.key_dir.clone(),
        })
    }
}

/// The winning texts while they are turned into values; numbers are written back in their printed form.
struct Values {
    resolved: Vec<Resolved>,
}

impl Values {
    fn position(&self, name: &str) -> usize {
        // A name that is not in SETTINGS is a mistake in this file; `every_setting_is_used` would find it.
        self.resolved
            .iter()
            .position(|value| value.name == name)
            .unwrap_or_default()
    }

    fn text(&self, name: &str) -> &str {
        &self.resolved[self.position(name)].value
    }

    fn invalid(&self, name: &'static str, rule: impl Into<String>) -> ConfigError {
        let found = &self.resolved[self.position(name)];
        ConfigError::Invalid {
            name,
            from: found.source_text(),
            value: found.value.clone(),
            rule: rule.into(),
        }
    }

    fn path(&self, name: &'static str) -> Result<PathBuf, ConfigError> {
        match self.text(name) {
            "" => Err(self.invalid(name, "a path must not be empty")),
            path => Ok(PathBuf::from(path)),
        }
    }

    /// Two paths of which neither is of use without the other.
    fn both_paths(
        &self,
        name: &'static str,
        other: &'static str,
    ) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
        match (self.text(name), self.text(other)) {
            ("", "") => Ok(None),
            (_, "") => Err(self.invalid(name, format!("it needs `{other}` as well"))),
            ("", _) => Err(self.invalid(other, format!("it needs `{name}` as well"))),
            (path, other) => Ok(Some((PathBuf::from(path), PathBuf::from(other)))),
        }
    }

    fn address(&self, name: &'static str) -> Result<String, ConfigError> {
        let text = self.text(name);
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(text.to_owned())
            }
            _ => Err(self.invalid(
                name,
                "an address is a host and a port, like `127.0.0.1:9001`",
            )),
        }
    }

    /// As [`Values::address`]; `None` when it is empty.
    fn optional_address(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        match self.text(name) {
            "" => Ok(None),
            _ => self.address(name).map(Some),
        }
    }

    /// A text that may be a secret: whoever prints the settings gets to see that it is there, and no more.
    fn secret(&mut self, name: &'static str) -> Option<String> {
        let at = self.position(name);
        let text = self.resolved[at].value.clone();
        if text.is_empty() {
            return None;
        }
        if JoinToken::looks_like(&text) {
            self.resolved[at].value = "(a token)".to_owned();
        }
        Some(text)
    }

    /// A follower must hear at least one heartbeat before it gives its leader up. One that is due is left out after an
    /// append, so they are up to twice the interval apart, and the Raft core refuses to start below that.
    fn election_timeout_min(&mut self) -> Result<u64, ConfigError> {
        let heartbeat_ms = self.number("heartbeat_interval")?;
        let shortest_ms = self.number("election_timeout_min")?;
        if shortest_ms < 3 * heartbeat_ms {
            let heartbeat = units::format_duration_ms(heartbeat_ms);
            let rule =
                format!("it must be at least three times heartbeat_interval, which is {heartbeat}");
            return Err(self.invalid("election_timeout_min", rule));
        }
        Ok(shortest_ms)
    }

    /// Timeouts are drawn from a range, so that two followers rarely stand for election at once.
    fn election_timeout_max(&mut self) -> Result<u64, ConfigError> {
        let shortest_ms = self.number("election_timeout_min")?;
        let longest_ms = self.number("election_timeout_max")?;
        if longest_ms <= shortest_ms {
            let shortest = units::format_duration_ms(shortest_ms);
            let rule = format!("it must be more than election_timeout_min, which is {shortest}");
            return Err(self.invalid("election_timeout_max", rule));
        }
        Ok(longest_ms)
    }

    fn socket_address(&self, name: &'static str) -> Result<SocketAddr, ConfigError> {
        let text = self.text(name);
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        numeric.parse().map_err(|_| {
            self.invalid(
                name,
                "a listening address is an IP address and a port, like `127.0.0.1:8001`",
            )
        })
    }

    fn flag(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name) {
            "true" | "1" => Ok(true),
            "false" | "0" | "" => Ok(false),
            _ => Err(self.invalid(name, "it is either `true` or `false`")),
        }
    }

    fn origin(&self) -> Result<Option<String>, ConfigError> {
        let text = self.text("origin");
        if text.is_empty() {
            return Ok(None);
        }
        if text.contains(|c: char| c.is_whitespace() || c == '+') {
            return Err(self.invalid("origin", "an origin has no white space and no `+`"));
        }
        Ok(Some(text.to_owned()))
    }

    /// Outside witnesses, one a line.
    fn witnesses(&self) -> Result<Vec<WitnessAddress>, ConfigError> {
        let mut found: Vec<WitnessAddress> = Vec::new();
        let lines = self.text("witness").lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty()) {
            let witness: WitnessAddress = line
                .parse()
                .map_err(|rule: String| self.invalid("witness", rule))?;
            // One name or one key twice would count as two where it is one.
            if found.iter().any(|other| {
                other.key.name() == witness.key.name()
                    || other.key.public_key() == witness.key.public_key()
            }) {
                let rule = format!(
                    "each witness has a name and a key of its own, `{}` is there twice",
                    witness.key.name()
                );
                return Err(self.invalid("witness", rule));
            }
            found.push(witness);
        }
        if found.len() > limits::WITNESSES_MAX {
            let rule = format!("at most {} witnesses are allowed", limits::WITNESSES_MAX);
            return Err(self.invalid("witness", rule));
        }
        Ok(found)
    }

    /// A number within its setting's range; the text is replaced by its printed form.
    fn number(&mut self, name: &'static str) -> Result<u64, ConfigError> {
        type Parse = fn(&str) -> Result<u64, UnitError>;
        type Print = fn(u64) -> String;
        let at = self.position(name);
        let setting = &SETTINGS[at];
        let (parse, print): (Parse, Print) = match setting.kind {
            Kind::Bytes => (units::parse_bytes, units::format_bytes),
            Kind::Duration => (units::parse_duration_ms, units::format_duration_ms),
            _ => (units::parse_count, |number| number.to_string()),
        };
        let number = parse(self.text(name)).map_err(|rule| self.invalid(name, rule.to_string()))?;
        let (low, high) = setting.range;
        if !(low..=high).contains(&number) {
            let rule = format!("allowed is {} to {}", print(low), print(high));
            return Err(self.invalid(name, rule));
        }
        self.resolved[at].value = print(number);
        Ok(number)
    }
}

fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Keys and values of a settings file; values as text, whatever their TOML type.
fn parse_file(path: &Path, text: &str) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let table: toml::Table =
        text.parse()
            .map_err(|error: toml::de::Error| ConfigError::Syntax {
                path: path.to_path_buf(),
                message: error.to_string().trim_end().to_owned(),
            })?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        // There are no tables; `[http] addr` is answered with the setting it stands for.
        let key = match value.as_table().and_then(|inner| inner.keys().next()) {
            Some(inner) => format!("{key}.{inner}"),
            None => key,
        };
        let setting = find(&key).ok_or_else(|| ConfigError::UnknownKey {
            path: path.to_path_buf(),
            closest: closest(&key, SETTINGS.iter().map(|setting| setting.name)),
            key: key.clone(),
        })?;
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Array(texts_found) if setting.kind == Kind::List => {
                // A text of several lines would become several.
                let texts: Option<Vec<&str>> = texts_found
                    .iter()
                    .map(toml::Value::as_str)
                    .map(|text| text.filter(|text| !text.contains('\n')))
                    .collect();
                match texts {
                    Some(texts) => texts.join("\n"),
                    None => {
                        return Err(ConfigError::Invalid {
                            name: setting.name,
                            from: path.display().to_string(),
                            value: toml::Value::Array(texts_found).to_string(),
                            rule: "it is an array of texts of one line each".to_owned(),
                        });
                    }
                }
            }
            other => {
                return Err(ConfigError::Invalid {
                    name: setting.name,
                    from: path.display().to_string(),
                    value: other.to_string(),
                    rule: "a setting is a text, a whole number or true or false".to_owned(),
                });
            }
        };
        values.insert(setting.name, text);
    }
    Ok(values)
}

/// A misspelt variable must not be silently ignored, but others may set `SCRIBE_*` too (Kubernetes does for a
/// service named `scribe`): a warning, not an error.
fn unknown_variables(variables: &BTreeMap<String, String>) -> Vec<String> {
    let known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
    let mut warnings = Vec::new();
    for name in variables.keys().filter(|name| name.starts_with("SCRIBE_")) {
        if known.contains(name) || OTHER_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let nearest = closest(
            name,
            known.iter().map(String::as_str).chain(OTHER_VARIABLES),
        );
        warnings.push(format!(
            "variable `{name}` means nothing to scribe; closest is `{nearest}`"
        ));
    }
    warnings
}

/// The candidate with the smallest edit distance.
fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> &'a str {
    // Far longer than every candidate: the rest of a key as long as the file would only take time.
    let word: String = word.chars().take(128).collect();
    candidates
        .min_by_key(|candidate| edit_distance(&word, candidate))
        .unwrap_or_default()
}

/// Levenshtein distance in bytes. Both words are short: one is ours, the other a line of a settings file.
fn edit_distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(!a.eq_ignore_ascii_case(b));
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests;
