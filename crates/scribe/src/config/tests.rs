//! Which source wins, what is refused and how it is said, and the sample file.

use super::*;

const SAMPLE: &str = include_str!("../../../../scribe.toml");

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn resolve_file(text: &str) -> Result<Config, ConfigError> {
    resolve(
        &Flags::new(),
        &BTreeMap::new(),
        Some((Path::new("scribe.toml"), text)),
    )
}

fn defaults() -> Config {
    resolve(&Flags::new(), &BTreeMap::new(), None).unwrap()
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = Some((
        Path::new("etc/scribe.toml"),
        "data_dir = \"from-file\"\nkey_dir = \"from-file\"\nvalue_length_max = \"1MiB\"\n",
    ));
    let environment = variables(&[
        ("SCRIBE_DATA_DIR", "from-variable"),
        ("SCRIBE_KEY_DIR", "from-variable"),
    ]);
    let flags = Flags::from([("data_dir", "from-flag".to_owned())]);
    let config = resolve(&flags, &environment, file).unwrap();

    assert_eq!(config.data_dir, Path::new("from-flag"));
    assert_eq!(config.key_dir, Path::new("from-variable"));
    assert_eq!(config.value_length_max, 1 << 20);
    assert_eq!(config.publish_interval_ms, 1_000);
    let sources: BTreeMap<_, _> = config
        .resolved
        .iter()
        .map(|value| (value.name, value.source_text()))
        .collect();
    assert_eq!(sources["data_dir"], "flag --data-dir");
    assert_eq!(sources["key_dir"], "SCRIBE_KEY_DIR");
    assert_eq!(sources["value_length_max"], "etc/scribe.toml");
    assert_eq!(sources["publish_interval"], "default");
}

#[test]
fn the_defaults_are_the_limits() {
    let config = defaults();
    assert_eq!(config.value_length_max, limits::VALUE_LENGTH_DEFAULT_MAX);
    assert_eq!(config.disk_reserve_bytes, limits::DISK_RESERVE_BYTES);
    assert_eq!(config.index_cache_bytes, limits::INDEX_CACHE_BYTES);
    assert_eq!(config.entry_cache_bytes, limits::ENTRY_CACHE_BYTES);
    assert_eq!(config.peer_connect_ms, limits::PEER_CONNECT_MS);
    assert_eq!(config.peer_request_ms, limits::PEER_REQUEST_MS);
    assert_eq!(config.peer_progress_ms, limits::PEER_PROGRESS_MS);
    assert_eq!(config.http_addr, "127.0.0.1:8001".parse().unwrap());
    assert_eq!(config.origin, None);
}

#[test]
fn the_sample_file_changes_nothing_and_documents_every_setting_with_its_default() {
    let untouched = resolve_file(SAMPLE).unwrap();
    assert!(
        untouched
            .resolved
            .iter()
            .all(|value| value.source == Source::Default)
    );

    let mut uncommented = String::new();
    for line in SAMPLE.lines() {
        match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => uncommented.push_str(rest),
            _ => uncommented.push_str(line),
        }
        uncommented.push('\n');
    }
    let config = resolve_file(&uncommented).unwrap();
    for (set, default) in config.resolved.iter().zip(defaults().resolved) {
        assert!(
            matches!(set.source, Source::File(_)),
            "`{}` is not in the sample",
            set.name
        );
        assert_eq!(set.value, default.value, "`{}` in the sample", set.name);
        let variable = find(set.name).unwrap().variable();
        assert!(
            SAMPLE.contains(&variable),
            "the sample does not name {variable}"
        );
    }
}

#[test]
fn every_setting_is_used() {
    // A name asked for that is not in SETTINGS would read the first setting's text.
    let flags: Flags = [("data_dir", "only-here".to_owned())].into();
    let config = resolve(&flags, &BTreeMap::new(), None).unwrap();
    assert_eq!(format!("{config:?}").matches("only-here").count(), 2);
}

#[test]
fn an_unknown_key_names_the_closest_known_one() {
    let error = resolve_file("publish_intervall = \"1s\"").unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown setting `publish_intervall` in `scribe.toml`"
    );
    assert!(error.hint().unwrap().contains("`publish_interval`"));
    let error = resolve_file("[http]\naddr = 1").unwrap_err();
    assert!(
        error.hint().unwrap().contains("`http_addr`"),
        "{:?}",
        error.hint()
    );
}

#[test]
fn an_unknown_variable_is_a_warning() {
    let environment = variables(&[
        ("SCRIBE_DATADIR", "x"),
        ("SCRIBE_SERVER", "http://a"),
        ("SCRIBE_OUTPUT", "json"),
    ]);
    let config = resolve(&Flags::new(), &environment, None).unwrap();
    assert_eq!(
        config.warnings,
        ["variable `SCRIBE_DATADIR` means nothing to scribe; closest is `SCRIBE_DATA_DIR`"]
    );
}

#[test]
fn a_bad_value_names_the_rule_the_value_and_where_it_came_from() {
    for (line, expected) in [
        (
            "value_length_max = \"64MiB\"",
            "invalid `value_length_max` from scribe.toml: found `64MiB`, but allowed is 1B to 32MiB",
        ),
        (
            "publish_interval = 5",
            "invalid `publish_interval` from scribe.toml: found `5`, but a duration is a whole number \
             with a unit: ms, s, m, h or d",
        ),
        (
            "http_addr = \"example.com:80\"",
            "invalid `http_addr` from scribe.toml: found `example.com:80`, but a listening address is an \
             IP address and a port, like `127.0.0.1:8001`",
        ),
        (
            "raft_addr = \"9001\"",
            "invalid `raft_addr` from scribe.toml: found `9001`, but an address is a host and a port, \
             like `127.0.0.1:9001`",
        ),
        (
            "insecure = \"yes\"",
            "invalid `insecure` from scribe.toml: found `yes`, but it is either `true` or `false`",
        ),
        (
            "http_tls_key = \"k.pem\"",
            "invalid `http_tls_key` from scribe.toml: found `k.pem`, but it needs `http_tls_cert` as well",
        ),
        (
            "data_dir = \"\"",
            "invalid `data_dir` from scribe.toml: found ``, but a path must not be empty",
        ),
        (
            "origin = \"two words\"",
            "invalid `origin` from scribe.toml: found `two words`, but an origin has no white space and \
             no `+`",
        ),
        (
            "log = 1.5",
            "invalid `log` from scribe.toml: found `1.5`, but a setting is a text, a whole number or \
             true or false",
        ),
    ] {
        assert_eq!(resolve_file(line).unwrap_err().to_string(), expected);
    }
    let error = resolve_file("data_dir = ").unwrap_err();
    assert!(matches!(error, ConfigError::Syntax { .. }));
}

/// A key named `name` of type 0x04 with this seed, as text.
fn witness_key(name: &str, seed: u8) -> String {
    let key = scribe_proof::SigningKey::cosigner_from_seed(name, &[seed; 32]).unwrap();
    key.verifier_key().to_text()
}

#[test]
fn witnesses_are_a_list_in_every_source() {
    let (a, b) = (witness_key("w.example/a", 1), witness_key("w.example/b", 2));
    let (a, b) = (format!("{a} http://a:1/sub/"), format!("{b} https://b"));
    let lines = format!("{a}\n\n {b}\n");
    let file = resolve_file(&format!("witness = [\"{a}\", \"{b}\"]")).unwrap();
    let environment = variables(&[("SCRIBE_WITNESS", &lines)]);
    let environment = resolve(&Flags::new(), &environment, None).unwrap();
    let flags = Flags::from([("witness", lines.clone())]);
    let flags = resolve(&flags, &BTreeMap::new(), None).unwrap();
    for config in [file, environment, flags] {
        let found: Vec<String> = config.witnesses.iter().map(|w| w.to_string()).collect();
        assert_eq!(found, [a.trim_end_matches('/'), b.as_str()]);
    }
    assert!(defaults().witnesses.is_empty());
}

#[test]
fn what_is_no_witness_is_refused() {
    let ledger = scribe_proof::SigningKey::from_seed("example.com/l", &[1; 32]).unwrap();
    let ledger = ledger.verifier_key().to_text();
    let a = witness_key("w.example/a", 1);
    let same_key = witness_key("w.example/other", 1);
    let (name, rest) = a.split_once('+').unwrap();
    let other_id = format!("{name}+00000000+{}", &rest[9..]);
    let many: Vec<String> = (0..17)
        .map(|at| {
            format!(
                "\"{} http://w\"",
                witness_key(&format!("w.example/{at}"), at)
            )
        })
        .collect();
    for (line, expected) in [
        (
            "witness = [1]".to_owned(),
            "an array of texts of one line each",
        ),
        (
            "witness = [\"a\\nb\"]".to_owned(),
            "an array of texts of one line each",
        ),
        (
            format!("witness = [\"{a}\"]"),
            "`<verifier key> <submission URL>`",
        ),
        (
            format!("witness = [\"{a} http://a http://b\"]"),
            "`<verifier key> <submission URL>`",
        ),
        (format!("witness = [\"{ledger} http://a\"]"), "type 0x04"),
        (
            format!("witness = [\"{a} ftp://a\"]"),
            "only http and https",
        ),
        (
            format!("witness = [\"{a} http://a\", \"{a} http://b\"]"),
            "is there twice",
        ),
        (
            format!("witness = [\"{a} http://a\", \"{same_key} http://b\"]"),
            "is there twice",
        ),
        (format!("witness = [{}]", many.join(",")), "at most 16"),
        (format!("witness = [\"{other_id} http://a\"]"), "key id"),
        ("origin = [\"a\"]".to_owned(), "a setting is a text"),
    ] {
        let error = resolve_file(&line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn other_machines_are_kept_out_unless_asked_for() {
    let exposed = |lines: &str| resolve_file(lines).unwrap().check_exposure();
    assert!(exposed("http_addr = \"127.0.0.1:0\"").is_ok());
    assert!(exposed("http_addr = \"[::1]:8001\"").is_ok());
    assert!(exposed("http_addr = \"localhost:8001\"").is_ok());
    let error = exposed("http_addr = \"0.0.0.0:8001\"").unwrap_err();
    assert!(error.hint().unwrap().contains("--insecure"));
    assert!(exposed("http_addr = \"0.0.0.0:8001\"\ninsecure = true").is_ok());
    // TLS does not make up for authentication, and the message does not say that it is missing.
    let tls = "http_addr = \"0.0.0.0:8001\"\nhttp_tls_cert = \"c\"\nhttp_tls_key = \"k\"\n";
    let error = exposed(tls).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("TLS keeps others from listening")
    );
    assert!(exposed(&format!("{tls}insecure = true")).is_ok());
}

#[test]
fn edit_distances() {
    assert_eq!(edit_distance("", "abc"), 3);
    assert_eq!(edit_distance("kitten", "sitting"), 3);
    assert_eq!(edit_distance("same", "SAME"), 0);
}
