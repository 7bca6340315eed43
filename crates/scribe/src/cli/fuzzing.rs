//! Fuzz targets: the files that commands read.

pub(crate) use super::export::fuzzing::openings;
pub(crate) use super::import::fuzzing::import_line;

/// Inputs as other commands write them: target, name, bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut made = super::import::fuzzing::seeds();
    made.extend(super::export::fuzzing::seeds());
    made
}
