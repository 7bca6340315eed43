//! Why a run ends early.

use std::fmt;

/// What a run answers with when it cannot go on.
pub type Result<T> = std::result::Result<T, Trouble>;

/// Why a run ends early, by whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The product broke a promise: exit code 3.
    Violation(String),
    /// The machine or the harness failed, nothing is known about the product: exit code 2.
    Harness(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Violation(text) => write!(f, "VIOLATION: {text}"),
            Trouble::Harness(text) => write!(f, "the harness failed: {text}"),
        }
    }
}

/// A promise that was broken.
pub fn violation<T>(text: impl Into<String>) -> Result<T> {
    Err(Trouble::Violation(text.into()))
}

/// Something of the machine's that failed.
pub fn harness<T>(text: impl Into<String>) -> Result<T> {
    Err(Trouble::Harness(text.into()))
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        Trouble::Harness(error.to_string())
    }
}
