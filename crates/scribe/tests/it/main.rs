//! The one integration-test binary.

mod append;
mod cli_cluster_files;
mod cli_help;
mod cli_node;
mod cli_offline;
mod cluster;
mod crash;
mod damage;
mod http_bulk;
mod http_cluster;
mod http_connections;
mod http_keys;
mod http_ledger;
mod http_lists;
mod http_tls;
mod http_watch;
mod kill;
mod peer_calls;
mod peer_hostile;
mod peer_join;
mod peer_support;
mod support;
mod test_cluster;
mod test_ledger;
mod tidy;
