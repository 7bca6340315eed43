//! The command line: one file per command, each with its arguments and a `run`.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 the user's mistake, 2 something else failed,
//! 3 something was checked and does not hold. Only this module knows clap; commands hand plain values on.

mod audit;
mod bench;
mod check_config;
mod checkpoint;
mod cluster;
mod delete;
mod export;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod get;
mod history;
mod import;
mod keygen;
mod list;
mod monitor;
mod output;
mod policy;
mod prove;
mod put;
mod repair;
mod serve;
mod transfer;
mod verify;
mod watch;
mod witness;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};

use scribe_client::wire::At;

use self::output::{Exit, Failure, Format, Output};
use crate::cluster::files::ClusterFiles;
use crate::config::{self, Config, Flags, Kind, SETTINGS};

/// Where client verbs look for a node unless told otherwise.
const SERVER_DEFAULT: &str = "http://127.0.0.1:8001";

/// Longest file of CA certificates that is read: those of a whole system have 200 KiB.
const CA_LENGTH_MAX: u64 = 1 << 20;

/// How long a connection within this machine may take.
const LOCAL_CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// An immutable, verifiable key-value ledger
///
/// Nothing is ever overwritten: each put of a key appends a version, and a receipt proves to anyone, offline, that a
/// version is in the ledger. `scribe` alone starts a node with a ledger in ./scribe-data and keys in ./scribe-keys.
#[derive(Debug, Parser)]
#[command(
    name = "scribe",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Example: a ledger, an entry, and a proof of it that needs no network
  $ scribe &
  $ scribe put greeting hello
  $ scribe prove greeting --out greeting.tlog-proof
  $ scribe get greeting --out greeting.txt
  $ VKEY=$(scribe checkpoint --print vkey)
  $ scribe verify greeting.tlog-proof --value greeting.txt --vkey \"$VKEY\"

Exit codes: 0 done, 1 your mistake, 2 something else failed, 3 verification failed."
)]
struct CommandLine {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(Box<serve::Arguments>),
    Put(put::Arguments),
    Get(get::Arguments),
    Delete(delete::Arguments),
    History(history::Arguments),
    List(list::Arguments),
    Watch(watch::Arguments),
    Prove(prove::Arguments),
    Verify(verify::Arguments),
    Audit(audit::Arguments),
    Monitor(monitor::Arguments),
    Checkpoint(checkpoint::Arguments),
    Policy(policy::Arguments),
    Import(Box<import::Arguments>),
    Export(Box<export::Arguments>),
    Repair(Box<repair::Arguments>),
    Cluster(Box<cluster::Arguments>),
    Witness(Box<witness::Arguments>),
    Keygen(keygen::Arguments),
    Bench(bench::Arguments),
    CheckConfig(Box<check_config::Arguments>),
}

/// Runs the program with these arguments (the first is its name) and says how it went.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let verb = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line.verb.unwrap_or_else(|| Verb::Serve(Box::default())),
        Err(error) => {
            // Nothing can be done about a closed stdout or stderr.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(Exit::User as u8),
            };
        }
    };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::unexpected(format!("cannot start threads: {error}")))
        .and_then(|runtime| runtime.block_on(run(verb)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn run(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Serve(arguments) => serve::run(*arguments).await,
        Verb::Put(arguments) => put::run(arguments).await,
        Verb::Get(arguments) => get::run(arguments).await,
        Verb::Delete(arguments) => delete::run(arguments).await,
        Verb::History(arguments) => history::run(arguments).await,
        Verb::List(arguments) => list::run(arguments).await,
        Verb::Watch(arguments) => watch::run(arguments).await,
        Verb::Prove(arguments) => prove::run(arguments).await,
        Verb::Verify(arguments) => verify::run(arguments),
        Verb::Audit(arguments) => audit::run(arguments).await,
        Verb::Monitor(arguments) => monitor::run(arguments).await,
        Verb::Checkpoint(arguments) => checkpoint::run(arguments).await,
        Verb::Policy(arguments) => policy::run(arguments).await,
        Verb::Import(arguments) => import::run(*arguments).await,
        Verb::Export(arguments) => export::run(*arguments).await,
        Verb::Repair(arguments) => repair::run(*arguments).await,
        Verb::Cluster(arguments) => cluster::run(*arguments).await,
        Verb::Witness(arguments) => witness::run(*arguments).await,
        Verb::Keygen(arguments) => keygen::run(arguments),
        Verb::Bench(arguments) => bench::run(arguments).await,
        Verb::CheckConfig(arguments) => check_config::run(*arguments),
    }
}

/// The settings of a node, as flags made from [`SETTINGS`], so that no setting can lack one.
#[derive(Debug, Default)]
struct SettingArgs {
    flags: Flags,
    file: Option<PathBuf>,
}

impl SettingArgs {
    fn load(&self) -> Result<Config, Failure> {
        Ok(config::load(&self.flags, self.file.as_deref())?)
    }
}

impl Args for SettingArgs {
    fn augment_args(mut command: Command) -> Command {
        command = command.arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .env("SCRIBE_CONFIG")
                .hide_env_values(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("Read settings from this file [default: ./scribe.toml if it exists]"),
        );
        for setting in SETTINGS {
            let default = match (setting.kind, setting.default) {
                (Kind::Flag, _) | (_, "") => String::new(),
                (_, default) => format!(" [default: {default}]"),
            };
            let mut arg = Arg::new(setting.name)
                .long(setting.flag.trim_start_matches('-'))
                .action(ArgAction::Set)
                .help(format!("{}{default}", capitalized(setting.help)));
            arg = match setting.kind {
                Kind::Flag => arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_name("true|false"),
                Kind::Path => arg.value_name("DIR"),
                Kind::File => arg.value_name("FILE"),
                Kind::Address => arg.value_name("ADDRESS"),
                Kind::Text => arg.value_name("TEXT"),
                Kind::Token => arg.value_name("TOKEN|FILE"),
                Kind::Bytes => arg.value_name("SIZE"),
                Kind::Duration => arg.value_name("DURATION"),
                Kind::Count => arg.value_name("N"),
                Kind::List => arg.value_name("TEXT").action(ArgAction::Append),
            };
            command = command.arg(arg);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = SettingArgs::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        for setting in SETTINGS {
            if let Some(values) = matches.get_many::<String>(setting.name) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                // All but a list have one.
                self.flags.insert(setting.name, values.join("\n"));
            }
        }
        Ok(())
    }
}

/// The directories of a stopped node, for verbs that need no other setting.
#[derive(Debug, Args)]
struct DirectoryArgs {
    /// Directory of the ledger; the node must be stopped
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Directory of its keys [default: ./scribe-keys]
    #[arg(long, value_name = "DIR", requires = "data_dir")]
    key_dir: Option<String>,
    /// Read settings from this file [default: ./scribe.toml if it exists]
    #[arg(
        long,
        value_name = "FILE",
        env = "SCRIBE_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
}

impl DirectoryArgs {
    /// The settings with these directories; logs are left to whoever sets `log` on purpose.
    fn load(&self) -> Result<Config, Failure> {
        let named = [("data_dir", &self.data_dir), ("key_dir", &self.key_dir)];
        let flags = named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect();
        Ok(config::load(&flags, self.config.as_deref())?)
    }
}

/// Refuses the directories of a member of a cluster, for verbs that decide by themselves what a ledger holds.
fn expect_no_member(config: &Config, hint: &str) -> Result<(), Failure> {
    match ClusterFiles::load(&config.key_dir)? {
        None => Ok(()),
        Some(files) => Err(Failure::user(format!(
            "`{}` is the key directory of node {}, a member of a cluster",
            config.key_dir.display(),
            files.node_id
        ))
        .hint(hint)),
    }
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// How to print.
#[derive(Debug, Args)]
struct OutputArgs {
    /// How to print data
    #[arg(
        long,
        value_name = "FORMAT",
        env = "SCRIBE_OUTPUT",
        default_value = "text"
    )]
    #[arg(hide_env_values = true)]
    output: Format,
}

/// Whom to ask, and how to print what they say.
#[derive(Debug, Args)]
struct ClientArgs {
    /// Node to ask
    #[arg(long, value_name = "URL", env = "SCRIBE_SERVER", default_value = SERVER_DEFAULT)]
    #[arg(hide_env_values = true)]
    server: String,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Whom to believe.
#[derive(Debug, Args)]
struct TrustArgs {
    /// PEM file with the CAs that vouch for https:// nodes [default: those of the system]
    #[arg(
        long,
        value_name = "FILE",
        env = "SCRIBE_CACERT",
        hide_env_values = true
    )]
    cacert: Option<PathBuf>,
}

impl TrustArgs {
    /// A client of the node at `url`; nothing is asked yet.
    fn client(&self, url: &str) -> Result<scribe_client::Client, Failure> {
        self.client_with(url, None)
    }

    /// The same, repeating calls as `retry` says.
    fn client_with(
        &self,
        url: &str,
        retry: Option<scribe_client::RetryPolicy>,
    ) -> Result<scribe_client::Client, Failure> {
        let mut builder = scribe_client::Client::builder(url);
        if let Some(retry) = retry {
            builder = builder.retry(retry);
        }
        if let Some(path) = &self.cacert {
            builder = builder.ca_pem(read_certificates(path)?);
        }
        Ok(builder.build()?)
    }
}

fn read_certificates(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error| Failure::file("read the CA certificates", path, &error);
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > CA_LENGTH_MAX {
        return Err(Failure::user(format!(
            "`{}` is {length} bytes long, a file of CA certificates has at most {CA_LENGTH_MAX}",
            path.display()
        )));
    }
    std::fs::read(path).map_err(unreadable)
}

impl ClientArgs {
    /// A client of the node; nothing is asked yet.
    fn connect(&self) -> Result<scribe_client::Client, Failure> {
        let client = self.trust.client(&self.server)?;
        expect_listener(client.url())?;
        Ok(client)
    }

    fn output(&self) -> Output {
        Output::new(self.output.output)
    }
}

/// Says at once that nobody listens on this machine. The client would try again for ten seconds, which is right for a
/// node that is restarting far away and wrong for one that was never started.
fn expect_listener(url: &str) -> Result<(), Failure> {
    let Ok((address, _)) = bench::resolve(url) else {
        return Ok(());
    };
    if !address.ip().is_loopback() {
        return Ok(());
    }
    match std::net::TcpStream::connect_timeout(&address, LOCAL_CONNECT_TIMEOUT) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(Failure::unexpected(format!(
                "cannot reach the node: nobody listens on {address}"
            ))
            .hint(output::NO_NODE_HINT))
        }
        // Anything else is for the client to find out, and to say.
        _ => Ok(()),
    }
}

/// A key on the command line.
#[derive(Debug, Args)]
struct KeyArgs {
    /// The key, taken byte for byte
    key: OsString,
    /// KEY is base64, for keys that no command line can hold
    #[arg(long)]
    base64: bool,
}

impl KeyArgs {
    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        key_bytes(&self.key, self.base64)
    }
}

/// A key's bytes from the command line, measured before anything is sent.
fn key_bytes(key: &OsStr, base64: bool) -> Result<Vec<u8>, Failure> {
    let bytes = if base64 {
        let text = key.to_str().unwrap_or_default();
        scribe_client::wire::bytes::from_base64("key", text)
            .map_err(|error| Failure::user(error.to_string()))?
    } else {
        key.as_bytes().to_vec()
    };
    let allowed = crate::limits::KEY_LENGTH_MAX;
    if bytes.is_empty() || bytes.len() > allowed {
        return Err(Failure::user(format!(
            "key must be 1 to {allowed} bytes long, found {}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// A point in the ledger on the command line: a number is a tree size, anything else must be a time.
fn parse_at(text: &str) -> Result<At, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text
            .parse()
            .map(At::Size)
            .map_err(|error| error.to_string());
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(At::Time(text.to_owned())),
        Err(_) => Err("a point is a tree size, or a time like 2030-01-31T12:00:00Z".to_owned()),
    }
}

/// The command line as clap knows it, for tests of its help texts.
#[doc(hidden)]
pub fn command() -> Command {
    <CommandLine as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Option<Verb>, clap::Error> {
        let arguments = std::iter::once("scribe").chain(arguments.iter().copied());
        CommandLine::try_parse_from(arguments).map(|line| line.verb)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn scribe_alone_serves() {
        assert!(parse(&[]).unwrap().is_none());
    }

    #[test]
    fn every_setting_is_a_flag_and_reaches_the_settings() {
        for setting in SETTINGS {
            let flag = format!("{}=x", setting.flag);
            let Some(Verb::CheckConfig(arguments)) = parse(&["check-config", &flag]).unwrap()
            else {
                panic!("not check-config");
            };
            let _ = arguments;
            let command = SettingArgs::augment_args(Command::new("scribe"));
            let matches = command.try_get_matches_from(["scribe", &flag]).unwrap();
            let settings = SettingArgs::from_arg_matches(&matches).unwrap();
            assert_eq!(
                settings.flags,
                Flags::from([(setting.name, "x".to_owned())])
            );
        }
        let command = SettingArgs::augment_args(Command::new("scribe"));
        let matches = command
            .try_get_matches_from(["scribe", "--insecure"])
            .unwrap();
        let settings = SettingArgs::from_arg_matches(&matches).unwrap();
        assert_eq!(settings.flags["insecure"], "true");
    }

    #[test]
    fn points_are_sizes_or_times() {
        assert_eq!(parse_at("1000"), Ok(At::Size(1_000)));
        let time = "2025-06-01T00:00:00+02:00";
        assert_eq!(parse_at(time), Ok(At::Time(time.to_owned())));
        for wrong in ["", "yesterday", "2025-06-01", "-1", "99999999999999999999"] {
            assert!(parse_at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_measured_before_they_are_sent() {
        assert_eq!(
            key_bytes(OsStr::from_bytes(b"\xffa"), false).unwrap(),
            b"\xffa"
        );
        assert_eq!(key_bytes(OsStr::new("AAE="), true).unwrap(), b"\0\x01");
        let error = key_bytes(OsStr::new(""), false).unwrap_err();
        assert_eq!(error.message, "key must be 1 to 1024 bytes long, found 0");
        assert_eq!(error.exit, Exit::User);
        assert!(key_bytes(OsStr::new(&"k".repeat(1_025)), false).is_err());
        assert!(key_bytes(OsStr::new("AAE"), true).is_err());
    }
}
