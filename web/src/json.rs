//! JSON as text, as much as the page needs: objects and arrays of strings, whole numbers and flags.
//!
//! Not a library for JSON: it writes only. The page reads numbers as 64-bit floats, so those that may pass 2^53 are
//! written as strings by whoever calls.

/// A value that is written into an answer.
#[derive(Debug, Clone)]
pub(crate) enum Json {
    Null,
    Flag(bool),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    pub(crate) fn text(text: impl ToString) -> Json {
        Json::Text(text.to_string())
    }

    pub(crate) fn maybe(text: Option<impl ToString>) -> Json {
        text.map_or(Json::Null, Json::text)
    }

    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Json::Text(text) => write_text(text, out),
            Json::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    write_text(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{0}'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let nasty = "a\"b\\c\n\u{0}\u{1f}\u{7f}\u{2028}é\u{1f980}";
        let json = Json::Object(vec![
            ("text", Json::text(nasty)),
            ("flag", Json::Flag(true)),
            (
                "list",
                Json::List(vec![Json::Null, Json::List(vec![]), Json::Object(vec![])]),
            ),
        ]);
        let mut text = String::new();
        json.write(&mut text);
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        let wanted = serde_json::json!({"text": nasty, "flag": true, "list": [null, [], {}]});
        assert_eq!(back, wanted);
    }
}
