//! `scribe check-config`: what a node would run with, and where each value came from.

use serde::Serialize;

use super::output::{Failure, Output, say};
use super::{OutputArgs, SettingArgs};

/// Print every setting with its value and where it came from
///
/// Reads flags, SCRIBE_* variables and scribe.toml exactly as `scribe serve` does, checks every value, and starts
/// nothing. Exit 1 names the first setting that is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe check-config --config /etc/scribe.toml --value-length-max 16MiB")]
pub struct Arguments {
    #[command(flatten)]
    settings: SettingArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    value: &'a str,
    source: String,
}

/// Runs the command.
///
/// # Errors
/// The settings are wrong.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.settings.load()?;
    config.check_exposure()?;
    super::serve::check_log_filter(&config.log)?;
    for warning in &config.warnings {
        say(format_args!("warning: {warning}"));
    }
    let output = Output::new(arguments.output.output);
    for resolved in &config.resolved {
        let line = Line {
            name: resolved.name,
            value: &resolved.value,
            source: resolved.source_text(),
        };
        // A list has a line for each of its texts.
        let value = line.value.replace('\n', ", ");
        let text = format!("{:<26} {value:<28} # {}", line.name, line.source);
        output.print(text, &line)?;
    }
    Ok(())
}
