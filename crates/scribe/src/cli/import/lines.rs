//! One line of a file as one line of a bulk upload.

use scribe_client::wire::bulk::Pairs;
use scribe_client::wire::{BulkLine, Text};
use scribe_proof::Metadata;

use super::super::transfer::{Carried, End, Header, Line, VERSION};
use super::{Arguments, LineFormat};

/// How lines are read.
#[derive(Debug, Clone)]
pub(super) struct LineReader {
    pub(super) format: LineFormat,
    pub(super) delimiter: Vec<u8>,
    pub(super) key_first: bool,
    pub(super) idempotency_key: Option<String>,
}

impl LineReader {
    pub(super) fn new(arguments: &Arguments) -> LineReader {
        LineReader {
            format: arguments.format,
            delimiter: arguments.delimiter.clone().into_bytes(),
            key_first: arguments.key_field == 1,
            idempotency_key: arguments.idempotency_key.clone(),
        }
    }

    /// What line `number` (from 1) of the file asks for; `None` if it asks for nothing.
    ///
    /// # Errors
    /// The rule the line breaks.
    pub(super) fn read(
        &self,
        number: u64,
        line: &[u8],
    ) -> Result<Option<BulkLine<'static>>, String> {
        if line.is_empty() {
            return Ok(None);
        }
        let read = match self.format {
            LineFormat::Export => from_export(line)?,
            LineFormat::Bulk => {
                let line: BulkLine<'_> =
                    serde_json::from_slice(line).map_err(|error| error.to_string())?;
                Some(line.into_owned())
            }
            LineFormat::Lines => Some(self.split(line)?),
        };
        Ok(read.map(|mut read| {
            if let Some(key) = &self.idempotency_key {
                read.idempotency_key = Some(Text::from(format!("{key}-{number}")));
            }
            read
        }))
    }

    fn split(&self, line: &[u8]) -> Result<BulkLine<'static>, String> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let at = match self.delimiter.is_empty() {
            true => None,
            false => line
                .windows(self.delimiter.len())
                .position(|window| window == self.delimiter),
        };
        let Some(at) = at else {
            return Err(format!(
                "a line is a key and a value with {:?} between them, found none",
                String::from_utf8_lossy(&self.delimiter)
            ));
        };
        let (first, second) = (&line[..at], &line[at + self.delimiter.len()..]);
        let (key, value) = if self.key_first {
            (first, second)
        } else {
            (second, first)
        };
        Ok(BulkLine::put(key, value).into_owned())
    }
}

/// Which kind of line of an export this is.
pub(super) enum ExportLine {
    Header(Header),
    Entry(Box<Line>),
    End(End),
}

/// Reads a line of an export.
///
/// # Errors
/// A line that is none of its kinds, or of a newer version.
pub(super) fn parse_export(line: &[u8]) -> Result<ExportLine, String> {
    // Entries are all but two of the lines, so they are tried first.
    let error = match serde_json::from_slice::<Line>(line) {
        Ok(entry) => return Ok(ExportLine::Entry(Box::new(entry))),
        Err(error) => error,
    };
    if let Ok(header) = serde_json::from_slice::<Header>(line) {
        if header.scribe_export != VERSION {
            return Err(format!(
                "an export of version {} is newer than this program, which knows version {VERSION}",
                header.scribe_export
            ));
        }
        return Ok(ExportLine::Header(header));
    }
    match serde_json::from_slice::<End>(line) {
        Ok(end) => Ok(ExportLine::End(end)),
        Err(_) => Err(format!("a line of an export is one JSON object: {error}")),
    }
}

/// Only what users wrote can be written again: the new ledger has system entries of its own.
fn from_export(line: &[u8]) -> Result<Option<BulkLine<'static>>, String> {
    let ExportLine::Entry(line) = parse_export(line)? else {
        return Ok(None);
    };
    let entry = Carried::from_line(&line)?;
    let leaf = scribe_proof::Leaf::parse(&entry.leaf).map_err(|error| error.to_string())?;
    match (leaf.kind, &entry.private) {
        (scribe_proof::LeafKind::System, _) => Ok(None),
        (scribe_proof::LeafKind::Delete, _) => Ok(Some(BulkLine::delete(leaf.key).into_owned())),
        (scribe_proof::LeafKind::Put, None) => {
            Err("the value was erased, there is nothing to append".to_owned())
        }
        (scribe_proof::LeafKind::Put, Some(private)) => {
            let metadata = Metadata::parse(&private.metadata).map_err(|error| error.to_string())?;
            let mut put = BulkLine::put(leaf.key, &private.value).into_owned();
            if !metadata.content_type.is_empty() {
                put.content_type = Some(Text::from(metadata.content_type));
            }
            put.metadata = metadata.pairs.into_iter().collect::<Pairs<'static>>();
            Ok(Some(put))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(format: LineFormat, delimiter: &str, key_first: bool) -> LineReader {
        LineReader {
            format,
            delimiter: delimiter.into(),
            key_first,
            idempotency_key: None,
        }
    }

    fn put(key: &str, value: &str) -> Option<BulkLine<'static>> {
        Some(BulkLine::put(key.as_bytes(), value.as_bytes()).into_owned())
    }

    #[test]
    fn lines_are_split_at_the_first_delimiter() {
        let tabs = reader(LineFormat::Lines, "\t", true);
        assert_eq!(
            tabs.read(1, b"key\tvalue\twith a tab").unwrap(),
            put("key", "value\twith a tab")
        );
        assert_eq!(tabs.read(1, b"").unwrap(), None);
        assert_eq!(tabs.read(1, b"key\t\r").unwrap(), put("key", ""));
        assert!(tabs.read(1, b"no tab").unwrap_err().contains("\"\\t\""));
        let sums = reader(LineFormat::Lines, "  ", false);
        assert_eq!(
            sums.read(1, b"0123abcd  /usr/a  b").unwrap(),
            put("/usr/a  b", "0123abcd")
        );
        assert!(reader(LineFormat::Lines, "", true).read(1, b"a").is_err());
    }

    #[test]
    fn bulk_lines_are_taken_as_they_are() {
        let bulk = reader(LineFormat::Bulk, "", true);
        let line = bulk
            .read(1, br#"{"key":"a","delete":true}"#)
            .unwrap()
            .unwrap();
        assert!(line.delete);
        assert!(
            bulk.read(1, br#"{"key":"a","vaule":"b"}"#)
                .unwrap_err()
                .contains("vaule")
        );
    }

    #[test]
    fn each_line_gets_its_own_idempotency_key() {
        let named = LineReader {
            idempotency_key: Some("run".into()),
            ..reader(LineFormat::Lines, "=", true)
        };
        let line = named.read(17, b"a=b").unwrap().unwrap();
        assert_eq!(line.idempotency_key, Some(Text::from("run-17")));
    }

    #[test]
    fn a_newer_export_is_refused() {
        let error = parse_export(br#"{"scribe_export":2,"origin":"a","tree_size":1}"#)
            .err()
            .unwrap();
        assert!(error.contains("version 2"), "{error}");
        assert!(parse_export(b"{}").is_err());
        assert!(parse_export(b"nonsense").is_err());
    }
}
