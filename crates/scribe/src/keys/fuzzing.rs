//! Fuzz target: the record of what was signed last. Key files are a target of `scribe-proof`, whose text they are.

use super::last_signed::LastSigned;

/// The record. A second spelling would be another file with the same meaning; a damaged one must not be taken for none.
pub(crate) fn last_signed(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(last) = LastSigned::parse(text) {
        assert_eq!(last.to_text(), text, "a second form");
        assert!(!last.origin.is_empty() && !last.origin.contains('\n'));
    }
}

/// Inputs as this program writes them: target, name, bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use scribe_proof::hash::{Hash, empty_root};
    use scribe_proof::index::TreeSize;

    let record = |size, root| {
        let last = LastSigned {
            origin: "example.com/ledger".to_owned(),
            size: TreeSize::new(size),
            root,
        };
        last.to_text().into_bytes()
    };
    let text = |size: &str| {
        let text = String::from_utf8(record(5, Hash([9; 32]))).expect("text");
        text.replace("\n5\n", &format!("\n{size}\n")).into_bytes()
    };
    vec![
        ("last_signed", "nothing-yet", record(0, empty_root())),
        ("last_signed", "some", record(1_234, Hash([9; 32]))),
        ("last_signed", "most", record(u64::MAX, Hash([0xff; 32]))),
        ("last_signed", "plus", text("+5")),
        ("last_signed", "zeros", text("005")),
        ("last_signed", "minus", text("-1")),
    ]
}
