//! Stopping members: leadership goes to a voter that runs and stays, and nobody waits for one that does not.

use scribe::node::HandedOver;

use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::put;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_to_a_voter_that_runs_and_stays() {
    let mut cluster = TestCluster::new(3).await;
    let leader = cluster.leader().await;
    let others = cluster.all_but(leader);
    let (leaving, staying) = (others[0], others[1]);
    assert_eq!(
        cluster.node(staying).hand_over().await,
        HandedOver::NotLeading
    );
    // It answers, and is about to go.
    cluster.node(leaving).leave().await;
    assert_eq!(
        cluster.node(leader).hand_over().await,
        HandedOver::To(staying)
    );
    eventually("the one that stays leads", async || {
        cluster.node(staying).health().is_leader
    })
    .await;
    // Elected is not yet leading: its first entry must be applied.
    cluster.node(staying).append(put("k", "v")).await.unwrap();
    // Now the other two go at once.
    cluster.node(leader).leave().await;
    assert_eq!(
        cluster.node(staying).hand_over().await,
        HandedOver::NobodyThere
    );
    // A voter that is gone was in touch a moment ago, and is not waited for either.
    cluster.stop(leaving).await;
    cluster.stop(leader).await;
    assert_eq!(
        cluster.node(staying).hand_over().await,
        HandedOver::NobodyThere
    );
    assert!(cluster.node(staying).health().is_leader);
    cluster.stop_all().await;
}
