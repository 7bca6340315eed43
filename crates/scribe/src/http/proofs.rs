//! `GET /v1/proofs/inclusion` and `GET /v1/proofs/consistency`: RFC 6962 proofs as JSON.
//!
//! The root hashes in the answers are this node's own and unsigned; a checkpoint is what makes one worth trusting.

use axum::extract::{Request, State};
use http::Response;
use scribe_client::wire::{ConsistencyProof, InclusionProof};
use scribe_proof::index::{LeafIndex, TreeSize};

use super::App;
use super::body::ReplyBody;
use super::convert::{hex, hexes};
use super::error::{ApiError, json_reply};
use super::request::Query;

/// `GET /v1/proofs/inclusion?index=&tree_size=`
pub(super) async fn inclusion(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(request.uri().query(), &["index", "tree_size"])?;
    let index = LeafIndex::new(needed(&query, "index")?);
    let size = tree_size(&app, query.number("tree_size")?).await?;
    if !size.contains(index) {
        return Err(ApiError::invalid_argument(format!(
            "index is {index}, allowed are indexes below the tree size {size}"
        )));
    }
    let node = app.node.clone();
    let proof = tokio::task::spawn_blocking(move || -> Result<InclusionProof, ApiError> {
        let (leaf_hash, hashes) = node.inclusion(index, size)?;
        Ok(InclusionProof {
            index: index.get(),
            tree_size: size.get(),
            leaf_hash: hex(&leaf_hash),
            root_hash: hex(&node.root_at(size)?),
            hashes: hexes(&hashes),
        })
    })
    .await
    .map_err(ApiError::task_failed)??;
    Ok(json_reply(&proof))
}

/// `GET /v1/proofs/consistency?old=&new=`
pub(super) async fn consistency(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(request.uri().query(), &["old", "new"])?;
    let old = TreeSize::new(needed(&query, "old")?);
    let new = tree_size(&app, query.number("new")?).await?;
    if old > new {
        return Err(ApiError::invalid_argument(format!(
            "old is {old}, allowed are tree sizes up to new, which is {new}"
        )));
    }
    let node = app.node.clone();
    let proof = tokio::task::spawn_blocking(move || -> Result<ConsistencyProof, ApiError> {
        // From the empty tree, and from a tree to itself, there is nothing to prove (RFC 9162, 2.1.4).
        let hashes = if old.is_empty() || old == new {
            Vec::new()
        } else {
            node.consistency(old, new)?
        };
        Ok(ConsistencyProof {
            old_size: old.get(),
            new_size: new.get(),
            old_root_hash: hex(&node.root_at(old)?),
            new_root_hash: hex(&node.root_at(new)?),
            hashes: hexes(&hashes),
        })
    })
    .await
    .map_err(ApiError::task_failed)??;
    Ok(json_reply(&proof))
}

fn needed(query: &Query<'_>, name: &str) -> Result<u64, ApiError> {
    query
        .number(name)?
        .ok_or_else(|| ApiError::invalid_argument(format!("parameter {name} is missing")))
}

/// The tree size asked for, or else the newest published one: a proof is of use only towards a checkpoint.
async fn tree_size(app: &App, asked: Option<u64>) -> Result<TreeSize, ApiError> {
    match asked.map(TreeSize::new) {
        None => match app.node.checkpoint() {
            Some(published) => Ok(published.size),
            None => Err(ApiError::not_published("there is no checkpoint yet", None)),
        },
        Some(size) if size <= app.node.applied_size() => Ok(size),
        Some(size) => {
            let newest = app.node.barrier().await?;
            if size > newest {
                return Err(ApiError::future(
                    format!("tree size {size} was asked for, the ledger has {newest} entries"),
                    newest.get(),
                ));
            }
            Ok(size)
        }
    }
}
