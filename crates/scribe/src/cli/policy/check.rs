//! `scribe policy check`: does a checkpoint satisfy a policy, and who signed it?

use std::path::PathBuf;

use serde::Serialize;

use super::super::ClientArgs;
use super::super::output::{Failure, show_time};
use super::{read_checkpoint, read_policy};

/// Check whether a checkpoint satisfies a policy, and show who signed it
///
/// The checkpoint comes from a file, or else is the newest of the node. Exit 3 means that it does not satisfy the policy.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: is it time to look after a node that does not cosign?
  $ scribe policy check ledger.policy"
)]
pub struct Arguments {
    /// Policy file
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    /// File with a checkpoint [default: the node's newest]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Serialize)]
struct Checked {
    satisfied: bool,
    origin: String,
    tree_size: u64,
    root_hash: String,
    /// The ledger key that signed; left out if the policy is not satisfied.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<String>,
    quorum: String,
    cosigners: Vec<CosignedBy>,
    /// Witnesses of the policy that did not cosign.
    missing: Vec<String>,
}

#[derive(Serialize)]
struct CosignedBy {
    name: String,
    key_name: String,
    timestamp_s: u64,
}

/// Runs the command.
///
/// # Errors
/// Exit 3 if the checkpoint does not satisfy the policy, exit 1 if a file cannot be read.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let (_, policy) = read_policy(&arguments.policy)?;
    let signed = match &arguments.checkpoint {
        Some(path) => read_checkpoint(path)?,
        None => arguments.client.connect()?.checkpoint().await?,
    };
    let evaluated = policy.evaluate(&signed);
    // Who cosigned is of interest most of all where it was not enough.
    let cosigners = policy.cosigners(&signed).unwrap_or_default();
    let missing = policy
        .witness_keys()
        .map(|(name, _)| name)
        .filter(|name| !cosigners.iter().any(|found| found.name == *name))
        .map(str::to_owned)
        .collect();
    let checkpoint = signed.checkpoint();
    let checked = Checked {
        satisfied: evaluated.is_ok(),
        origin: checkpoint.origin.clone(),
        tree_size: checkpoint.size.get(),
        root_hash: checkpoint.root.to_hex(),
        signed_by: evaluated.as_ref().ok().map(|report| report.log.to_text()),
        quorum: policy.quorum_name().to_owned(),
        cosigners: cosigners
            .into_iter()
            .map(|found| CosignedBy {
                name: found.name,
                key_name: found.key_name,
                timestamp_s: found.timestamp_s,
            })
            .collect(),
        missing,
    };
    let output = arguments.client.output();
    output.print(checked.to_text(), &checked)?;
    match evaluated {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::verification(format!(
            "the checkpoint does not satisfy the policy: {error}"
        ))),
    }
}

impl Checked {
    fn to_text(&self) -> String {
        let mut text = format!(
            "checkpoint   {} of {} entries\nroot hash    {}\n",
            self.origin, self.tree_size, self.root_hash
        );
        if let Some(key) = &self.signed_by {
            text += &format!("signed by    {key}\n");
        }
        for found in &self.cosigners {
            let time = show_time(found.timestamp_s.saturating_mul(1_000));
            text += &format!("cosigned by  {} ({}), {time}\n", found.name, found.key_name);
        }
        for name in &self.missing {
            text += &format!("missing      {name}\n");
        }
        let met = if self.satisfied {
            "satisfied"
        } else {
            "NOT satisfied"
        };
        text + &format!("policy       {met}, quorum {}", self.quorum)
    }
}
