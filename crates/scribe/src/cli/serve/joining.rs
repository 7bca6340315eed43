//! What a node with new directories does before it starts: it shows its token to a member and becomes one.
//!
//! A token works once, so everything that can be found out beforehand is: what would be refused after the token was
//! used up would cost the operator another one.

use std::io;
use std::path::Path;

use tokio::net::TcpListener;

use super::super::output::{Failure, say};
use crate::cluster::files::ClusterFiles;
use crate::cluster::join;
use crate::consensus::PeerAddress;
use crate::keys::LEDGER_KEY_FILE;
use crate::node::NodeOptions;
use crate::peer::JoinToken;
use crate::store::real_disk::RealDisk;
use crate::store::vote::read_identity;

/// Longest token file that is read.
const FILE_LENGTH_MAX: u64 = 64 * 1_024;

/// Joins the cluster of `token` (or of the token in the file it names), unless the key directory is a member's already.
///
/// # Errors
/// No token, directories that hold another ledger, an address others cannot use, and what the member refused.
pub(super) async fn join(token: &str, options: &mut NodeOptions) -> Result<(), Failure> {
    if let Some(files) = ClusterFiles::load(&options.key_dir)? {
        tracing::info!(
            node = files.node_id,
            "a member already: the join token is not needed"
        );
        return Ok(());
    }
    let token = read_token(token)?;
    check_new(options)?;
    check_address(&token, &options.raft_addr)?;
    fix_port(options).await?;
    say(format_args!(
        "joining the cluster at {}",
        token.addresses.join(", ")
    ));
    let address = PeerAddress {
        raft_addr: options.raft_addr.clone(),
        http_addr: options.http_addr.clone(),
    };
    let files = join::join(&options.key_dir, &token, &address).await?;
    say(format_args!("joined as node {}", files.node_id));
    Ok(())
}

/// The token in a text, or in the file it names.
fn read_token(text: &str) -> Result<JoinToken, Failure> {
    if JoinToken::looks_like(text) {
        return Ok(text.parse::<JoinToken>()?);
    }
    let path = Path::new(text);
    let unreadable = |error: io::Error| {
        Failure::file("read the join token", path, &error).hint(
            "--join takes a token of `scribe cluster token`, or the path of a file that holds it",
        )
    };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_LENGTH_MAX {
        return Err(Failure::user(format!(
            "`{}` is {length} bytes long, a file with a join token has at most {FILE_LENGTH_MAX}",
            path.display()
        )));
    }
    let token = std::fs::read_to_string(path).map_err(unreadable)?;
    Ok(token.trim().parse::<JoinToken>()?)
}

/// A ledger of its own cannot become part of another one.
fn check_new(options: &NodeOptions) -> Result<(), Failure> {
    let hint = "a node that joins starts with new directories: --data-dir and --key-dir name them";
    if let Some(found) = read_identity(&RealDisk, &options.data_dir)? {
        return Err(Failure::user(format!(
            "`{}` holds the ledger of node {} of a cluster of its own",
            options.data_dir.display(),
            found.node_id
        ))
        .hint(hint));
    }
    if options.key_dir.join(LEDGER_KEY_FILE).exists() {
        return Err(Failure::user(format!(
            "`{}` holds the key of a ledger of its own",
            options.key_dir.display()
        ))
        .hint(hint));
    }
    Ok(())
}

/// The members must be able to connect to the address this node will be known by.
fn check_address(token: &JoinToken, raft_addr: &str) -> Result<(), Failure> {
    let elsewhere = token.addresses.iter().any(|address| !is_local(address));
    if elsewhere && is_local(raft_addr) {
        return Err(Failure::user(format!(
            "the cluster is on other machines, which cannot reach raft_addr {raft_addr}"
        ))
        .hint("--raft-addr HOST:PORT is the address at which the others reach this node"));
    }
    Ok(())
}

fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// Makes sure that the port can be listened on, and that it has a number which can be told.
async fn fix_port(options: &mut NodeOptions) -> Result<(), Failure> {
    let listen = match options.raft_listen.as_str() {
        "" => options.raft_addr.clone(),
        listen => listen.to_owned(),
    };
    let cannot = |error: io::Error| {
        Failure::user(format!("cannot listen on {listen} for other nodes: {error}")).hint(
            "--raft-addr is the address others use, --raft-listen the one to listen on if it differs",
        )
    };
    let listener = TcpListener::bind(&listen).await.map_err(cannot)?;
    let port = listener.local_addr().map_err(cannot)?.port();
    if let Some(host) = options.raft_addr.strip_suffix(":0") {
        options.raft_addr = format!("{host}:{port}");
    }
    // Bound again when the node starts; if somebody is faster, the next start finds the files and needs no token.
    drop(listener);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(address: &str) -> JoinToken {
        JoinToken {
            addresses: vec![address.to_owned()],
            ca_fingerprint: [1; 32],
            secret: [2; 32],
            expires_ms: 3,
        }
    }

    #[test]
    fn a_token_is_a_text_or_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let made = token("10.0.0.1:9001");
        assert_eq!(read_token(&made.to_string()).unwrap(), made);
        std::fs::write(&path, format!("{made}\n")).unwrap();
        assert_eq!(read_token(path.to_str().unwrap()).unwrap(), made);
        std::fs::write(&path, "nothing").unwrap();
        assert!(
            read_token(path.to_str().unwrap())
                .unwrap_err()
                .message
                .contains("not a join token")
        );
        let missing = read_token("no-such-file").unwrap_err();
        assert!(missing.hints[0].contains("scribe cluster token"));
    }

    #[test]
    fn an_address_of_this_machine_is_of_no_use_to_others() {
        let far = token("10.0.0.1:9001");
        assert!(check_address(&far, "10.0.0.2:9001").is_ok());
        assert!(check_address(&far, "node-2.example.com:9001").is_ok());
        for local in [
            "127.0.0.1:9001",
            "localhost:9001",
            "[::1]:9001",
            "0.0.0.0:9001",
        ] {
            let failure = check_address(&far, local).unwrap_err();
            assert!(failure.hints[0].contains("--raft-addr"), "{local}");
        }
        assert!(check_address(&token("127.0.0.1:9001"), "127.0.0.1:9002").is_ok());
    }

    #[tokio::test]
    async fn a_directory_with_a_ledger_of_its_own_keeps_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = NodeOptions {
            data_dir: dir.path().join("data"),
            key_dir: dir.path().join("keys"),
            ..NodeOptions::default()
        };
        std::fs::create_dir(&options.key_dir).unwrap();
        std::fs::write(options.key_dir.join(LEDGER_KEY_FILE), "").unwrap();
        let text = token("127.0.0.1:1").to_string();
        let failure = join(&text, &mut options).await.unwrap_err();
        assert!(failure.message.contains("key of a ledger"), "{failure:?}");
    }
}
