//! Fuzz target: one line of a file that is imported.

use scribe_proof::LeafIndex;

use super::super::transfer::{Carried, Checked};
use super::LineFormat;
use super::lines::{ExportLine, LineReader, parse_export};

/// A line in one of the formats; the first byte says which, and which side the key is on.
pub(crate) fn import_line(data: &[u8]) {
    let Some((how, line)) = data.split_first() else {
        return;
    };
    let reader = LineReader {
        format: [LineFormat::Export, LineFormat::Bulk, LineFormat::Lines][usize::from(how % 3)],
        delimiter: [&b"\t"[..], b", ", b""][usize::from(how / 3 % 3)].to_vec(),
        key_first: how & 0x40 == 0,
        idempotency_key: (how & 0x80 != 0).then(|| "import".to_owned()),
    };
    if let Ok(Some(read)) = reader.read(7, line) {
        let expected = reader
            .idempotency_key
            .as_ref()
            .map(|key| format!("{key}-7"));
        let named = read.idempotency_key.as_ref().map(|key| key.0.to_string());
        assert!(expected.is_none() || named == expected);
        // What is sent can be read by the node, and says the same.
        let sent = serde_json::to_vec(&read).expect("JSON");
        let again = serde_json::from_slice(&sent).expect("what was written can be read");
        assert_eq!(read, again);
    }
    if let Ok(ExportLine::Entry(line)) = parse_export(line)
        && let Ok(entry) = Carried::from_line(&line)
    {
        let mut checked = Checked::default();
        let good = checked.add(line.index, &entry).is_ok();
        assert_eq!(checked.size().get(), u64::from(good));
        if good {
            assert_eq!(checked.root(), scribe_proof::leaf_hash(&entry.leaf));
            let written = entry.to_line(LeafIndex::new(0)).expect("a good leaf");
            assert_eq!(Carried::from_line(&written), Ok(entry));
        }
    }
}

/// Inputs as other commands write them: target, name, bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use scribe_client::wire::BulkLine;

    let mut made = Vec::new();
    let mut add = |name, how: u8, line: &[u8]| {
        made.push(("import_line", name, [&[how], line].concat()));
    };
    for (name, entry) in super::super::export::fuzzing::entries() {
        let line = entry.to_line(LeafIndex::new(0)).expect("a good leaf");
        add(*name, 0, &serde_json::to_vec(&line).expect("JSON"));
    }
    add(
        "header",
        0,
        br#"{"scribe_export":1,"origin":"example.com/ledger","tree_size":3}"#,
    );
    let end = format!(
        r#"{{"end":true,"tree_size":3,"root_hash":"{}"}}"#,
        "0a".repeat(32)
    );
    add("end", 0, end.as_bytes());
    let bulk =
        |key: &[u8], value: &[u8]| serde_json::to_vec(&BulkLine::put(key, value)).expect("JSON");
    add("bulk", 1, &bulk(b"key", b"value"));
    add("bulk-bytes", 0x81, &bulk(b"\xff\0", b"\xfe"));
    add("tab", 2, b"key\tvalue\r");
    add("comma", 2 + 3 + 0x40, b"value, key, more");
    made
}
