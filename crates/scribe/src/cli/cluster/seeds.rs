//! The directories of a cluster that is made on one machine, and how each of its nodes is started.
//!
//! ```text
//! <dir>/node-<id>/keys    who the node is, with the addresses all of them begin with; copied to its machine
//!                 data    the ledger, made at the first start
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::super::output::Failure;
use crate::cluster::files::ClusterFiles;
use crate::consensus::{NodeId, PeerAddress};
use crate::limits;

const KEYS: &str = "keys";
const DATA: &str = "data";

/// The voters a cluster begins with.
pub(super) type Members = BTreeMap<NodeId, PeerAddress>;

/// `ID=RAFT,HTTP` on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeSpec {
    id: NodeId,
    address: PeerAddress,
}

impl FromStr for NodeSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeSpec, String> {
        let rule = "a node is ID=RAFT,HTTP, such as 1=10.0.0.1:9001,10.0.0.1:8001";
        let (id, addresses) = text.split_once('=').ok_or(rule)?;
        let (raft, http) = addresses.split_once(',').ok_or(rule)?;
        let id: NodeId = id.trim().parse().map_err(|_| rule)?;
        if id == 0 {
            return Err("node ids begin with 1".to_owned());
        }
        let http = http.trim().trim_start_matches("http://");
        Ok(NodeSpec {
            id,
            address: PeerAddress {
                raft_addr: address(raft.trim())?,
                http_addr: address(http.trim_end_matches('/'))?,
            },
        })
    }
}

fn address(text: &str) -> Result<String, String> {
    match split(text) {
        Some(_) if text.len() <= limits::ADDRESS_LENGTH_MAX => Ok(text.to_owned()),
        _ => Err(format!(
            "an address is a host and a port others can connect to, like 10.0.0.1:9001; found `{text}`"
        )),
    }
}

/// Host and port; a port of 0 cannot be connected to.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    (!host.is_empty() && port > 0).then_some((host, port))
}

/// The members these nodes make.
///
/// # Errors
/// The same id or address twice, too many nodes, or none.
pub(super) fn members(specs: &[NodeSpec]) -> Result<Members, Failure> {
    check_count(specs.len())?;
    let mut members = Members::new();
    let mut addresses = BTreeMap::new();
    for NodeSpec { id, address } in specs {
        if members.insert(*id, address.clone()).is_some() {
            return Err(Failure::user(format!(
                "node {id} is named twice: ids must differ"
            )));
        }
        for text in [&address.raft_addr, &address.http_addr] {
            if let Some(other) = addresses.insert(text.clone(), *id) {
                return Err(Failure::user(format!(
                    "{text} is an address of node {other} and of node {id}: each port belongs to one node"
                )));
            }
        }
    }
    Ok(members)
}

/// Refuses more voters than a cluster can begin with.
///
/// # Errors
/// None at all, or too many.
pub(super) fn check_count(count: usize) -> Result<(), Failure> {
    let allowed = limits::BOOTSTRAP_MEMBERS_MAX;
    if (1..=allowed).contains(&count) {
        return Ok(());
    }
    Err(Failure::user(format!(
        "a cluster begins with 1 to {allowed} nodes, found {count}"
    ))
    .hint("each write waits for a majority: more copies for reads are learners (`scribe serve --join --learner`)"))
}

/// What is unwise about this many voters.
pub(super) fn warn_even(count: usize) -> Option<String> {
    match count {
        2 => Some(
            "two voters tolerate no failure: without either of them nothing can be written"
                .to_owned(),
        ),
        count if count % 2 == 0 => Some(format!(
            "{count} voters tolerate as many failures as {}: an odd number is better",
            count - 1
        )),
        _ => None,
    }
}

/// Where a node's keys are.
pub(super) fn key_dir(dir: &Path, id: NodeId) -> PathBuf {
    node_dir(dir, id).join(KEYS)
}

/// The members whose key directories are below `dir`, by id.
///
/// # Errors
/// Files that cannot be read or used.
pub(super) fn find(dir: &Path) -> Result<BTreeMap<NodeId, ClusterFiles>, Failure> {
    let mut found = BTreeMap::new();
    if !dir.exists() {
        return Ok(found);
    }
    let unreadable = |error| Failure::file("read", dir, &error);
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let keys = entry.map_err(unreadable)?.path().join(KEYS);
        if let Some(files) = ClusterFiles::load(&keys)? {
            found.insert(files.node_id, files);
        }
    }
    Ok(found)
}

/// A node's directory, which holds everything of it.
pub(super) fn node_dir(dir: &Path, id: NodeId) -> PathBuf {
    dir.join(format!("node-{id}"))
}

/// What a node is started with, as flags after `scribe serve`, where `node_dir` is its directory.
pub(super) fn flags(node_dir: &Path, address: &PeerAddress) -> Vec<String> {
    let mut flags = vec![
        "--member".to_owned(),
        "--data-dir".to_owned(),
        node_dir.join(DATA).display().to_string(),
        "--key-dir".to_owned(),
        node_dir.join(KEYS).display().to_string(),
    ];
    flags.extend(address_flags(address));
    flags
}

fn address_flags(address: &PeerAddress) -> Vec<String> {
    let mut flags = vec!["--raft-addr".to_owned(), address.raft_addr.clone()];
    // A machine's own name may mean an address only it can use.
    if let Some((host, port)) = split(&address.raft_addr)
        && kind(host) == Host::Name
    {
        flags.extend(["--raft-listen".to_owned(), format!("0.0.0.0:{port}")]);
    }
    let (host, port) = split(&address.http_addr).unwrap_or((&address.http_addr, 0));
    if kind(host) == Host::Loopback {
        flags.extend(["--http-addr".to_owned(), address.http_addr.clone()]);
        return flags;
    }
    // Everywhere, so that the cluster can be changed: that is taken from the machine's loopback address alone.
    let everywhere = if host.starts_with('[') {
        "[::]"
    } else {
        "0.0.0.0"
    };
    flags.extend([
        "--http-addr".to_owned(),
        format!("{everywhere}:{port}"),
        "--http-advertise-addr".to_owned(),
        address.http_addr.clone(),
        "--insecure".to_owned(),
    ]);
    flags
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Loopback,
    Address,
    Name,
}

fn kind(host: &str) -> Host {
    if host == "localhost" {
        return Host::Loopback;
    }
    match host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
    {
        Ok(ip) if ip.is_loopback() => Host::Loopback,
        Ok(_) => Host::Address,
        Err(_) => Host::Name,
    }
}

/// Words as a shell reads them back.
pub(super) fn shell(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,[]".contains(c);
        match word.chars().all(plain) && !word.is_empty() {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(texts: &[&str]) -> Vec<NodeSpec> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn nodes_are_an_id_and_two_addresses() {
        let spec: NodeSpec = "3=node-3.example.com:9001,http://10.0.0.3:8001/"
            .parse()
            .unwrap();
        assert_eq!(spec.id, 3);
        assert_eq!(spec.address.raft_addr, "node-3.example.com:9001");
        assert_eq!(spec.address.http_addr, "10.0.0.3:8001");
        for wrong in [
            "",
            "1",
            "1=a:1",
            "0=a:1,b:2",
            "x=a:1,b:2",
            "1=a:0,b:2",
            "1=a,b:2",
            "1=:1,b:2",
            "-1=a:1,b:2",
        ] {
            assert!(wrong.parse::<NodeSpec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_and_addresses_belong_to_one_node() {
        let message = |texts: &[&str]| members(&specs(texts)).unwrap_err().message;
        assert_eq!(
            members(&specs(&["1=a:1,a:2", "2=b:1,b:2"])).unwrap().len(),
            2
        );
        assert_eq!(
            message(&["1=a:1,a:2", "1=b:1,b:2"]),
            "node 1 is named twice: ids must differ"
        );
        assert_eq!(
            message(&["1=a:1,a:2", "2=b:1,a:2"]),
            "a:2 is an address of node 1 and of node 2: each port belongs to one node"
        );
        assert!(message(&["1=a:1,a:1"]).contains("node 1 and of node 1"));
        assert_eq!(message(&[]), "a cluster begins with 1 to 9 nodes, found 0");
        assert!(check_count(9).is_ok());
        assert!(check_count(10).is_err());
    }

    #[test]
    fn even_numbers_of_voters_are_unwise() {
        assert!(
            [1, 3, 5]
                .into_iter()
                .all(|count| warn_even(count).is_none())
        );
        assert!(warn_even(2).unwrap().contains("no failure"));
        assert!(warn_even(4).unwrap().contains("as 3"));
    }

    #[test]
    fn a_start_command_listens_where_it_can_and_tells_others_the_name() {
        let start = |raft: &str, http: &str| {
            let address = PeerAddress {
                raft_addr: raft.to_owned(),
                http_addr: http.to_owned(),
            };
            shell(&address_flags(&address))
        };
        assert_eq!(
            start("127.0.0.1:9001", "localhost:8001"),
            "--raft-addr 127.0.0.1:9001 --http-addr localhost:8001"
        );
        assert_eq!(
            start("10.0.0.1:9001", "[fd00::1]:8001"),
            "--raft-addr 10.0.0.1:9001 --http-addr [::]:8001 --http-advertise-addr [fd00::1]:8001 --insecure"
        );
        assert_eq!(
            start("10.0.0.1:9001", "10.0.0.1:8001"),
            "--raft-addr 10.0.0.1:9001 --http-addr 0.0.0.0:8001 --http-advertise-addr 10.0.0.1:8001 --insecure"
        );
        assert_eq!(
            start("a.example:9001", "a.example:8001"),
            "--raft-addr a.example:9001 --raft-listen 0.0.0.0:9001 --http-addr 0.0.0.0:8001 \
             --http-advertise-addr a.example:8001 --insecure"
        );
    }

    #[test]
    fn a_start_command_works_wherever_the_directory_is() {
        let address = PeerAddress {
            raft_addr: "127.0.0.1:9001".to_owned(),
            http_addr: "127.0.0.1:8001".to_owned(),
        };
        let command = shell(&flags(Path::new("."), &address));
        assert!(
            command.starts_with("--member --data-dir ./data --key-dir ./keys --raft-addr "),
            "{command}"
        );
    }

    #[test]
    fn words_survive_a_shell() {
        let words = ["a", "two words", "it's", ""].map(str::to_owned);
        assert_eq!(shell(&words), r"a 'two words' 'it'\''s' ''");
    }
}
