//! Server-sent events (WHATWG HTML section 9.2), as far as a watch needs them.

use super::ndjson::{LineTooLong, Lines};

/// One event as it arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// `message` if none was named.
    pub name: String,
    pub data: String,
}

/// Puts events together from pieces of a body.
#[derive(Debug, Default)]
pub(super) struct Events {
    lines: Lines,
    name: String,
    data: Option<String>,
}

impl Events {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.lines.push(piece);
    }

    /// The next whole event, if there is one. Comments and events without data are skipped.
    pub(super) fn next(&mut self) -> Result<Option<Event>, LineTooLong> {
        while let Some(line) = self.lines.next()? {
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                let name = std::mem::take(&mut self.name);
                if let Some(data) = self.data.take() {
                    let name = if name.is_empty() {
                        "message".to_owned()
                    } else {
                        name
                    };
                    return Ok(Some(Event { name, data }));
                }
                continue;
            }
            let line = String::from_utf8_lossy(line);
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.name = value.to_owned(),
                "data" => match &mut self.data {
                    Some(data) => {
                        if data.len() + value.len() > super::ndjson::LINE_LENGTH_MAX {
                            return Err(LineTooLong);
                        }
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => self.data = Some(value.to_owned()),
                },
                // The id repeats the index in the data; `retry` is this client's own affair.
                _ => (),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_arrive() {
        let text = b": hello\n\nid: 4\nevent: entry\ndata: {\"a\":\ndata:1}\n\n\
            event: empty\n\ndata:x\r\n\r\nevent: progress\ndata: 5\n";
        for size in [1, 2, 3, 7, text.len()] {
            let mut events = Events::default();
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                events.push(piece);
                while let Some(event) = events.next().unwrap() {
                    found.push((event.name, event.data));
                }
            }
            let expected = [("entry", "{\"a\":\n1}"), ("message", "x")];
            assert_eq!(
                found,
                expected.map(|(name, data)| (name.to_owned(), data.to_owned()))
            );
        }
    }
}
