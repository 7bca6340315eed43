//! `scribe cluster renew`: a new certificate for this node.

use std::path::PathBuf;

use super::super::output::{Failure, say};
use crate::cluster::files::{CERTIFICATE_FILE, CERTIFICATE_VALIDITY, ClusterFiles};
use crate::config::{self, Flags};
use crate::world::World;

/// Make a new certificate for this node, which may be running
///
/// Certificates are good for two years. The new one and its key replace the old ones in the key directory; a node that
/// runs takes them into use when it gets SIGHUP, without closing a connection, and at its next start anyway.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: on the machine of the node
  $ scribe cluster renew --key-dir ./scribe-keys
  $ kill -HUP \"$(pidof scribe)\"")]
pub struct Arguments {
    /// Directory of the node's keys [default: ./scribe-keys]
    #[arg(long, value_name = "DIR")]
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

/// Runs the command.
///
/// # Errors
/// The directory is no member's (exit 1), or files that cannot be read or written.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut flags = Flags::new();
    if let Some(dir) = &arguments.key_dir {
        flags.insert("key_dir", dir.clone());
    }
    let key_dir = config::load(&flags, arguments.config.as_deref())?.key_dir;
    let Some(files) = ClusterFiles::load(&key_dir)? else {
        return Err(Failure::user(format!(
            "`{}` is not the key directory of a member of a cluster",
            key_dir.display()
        ))
        .hint("--key-dir names it; a node that runs alone has no certificate"));
    };
    files.renew(&World::real())?;
    say(format_args!(
        "node {} has a new certificate, good for {} days: {}\nif the node runs, send it SIGHUP: it takes the \
         certificate into use without closing a connection",
        files.node_id,
        CERTIFICATE_VALIDITY.as_secs() / (24 * 60 * 60),
        key_dir.join(CERTIFICATE_FILE).display(),
    ));
    Ok(())
}
