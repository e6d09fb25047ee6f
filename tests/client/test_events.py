from __future__ import annotations

import pytest

from steersman.api.resource import EVENTS, NAMESPACES, Object
from steersman.client.events import EventRecorder
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster

POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "7"},
}


@pytest.fixture
def recorder(cluster: ApiCluster, tasks: Tasks) -> EventRecorder:
    return EventRecorder(cluster.client, cluster.clock, tasks, component="kubelet", host="node-1")


async def events(cluster: ApiCluster, namespace: str = "default") -> list[Object]:
    return (await cluster.client.list(EVENTS, namespace)).items


async def test_an_event_says_who_what_and_when(cluster: ApiCluster, recorder: EventRecorder) -> None:
    recorder.event(POD, "Warning", "BackOff", "Back-off restarting failed container")
    await recorder.flush()
    [event] = await events(cluster)
    assert event["involvedObject"] == {
        "kind": "Pod",
        "namespace": "default",
        "name": "web",
        "uid": "u1",
        "apiVersion": "v1",
        "resourceVersion": "7",
    }
    assert event["source"] == {"component": "kubelet", "host": "node-1"}
    assert (event["reportingComponent"], event["reportingInstance"]) == ("kubelet", "node-1")
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "BackOff", 1)
    assert event["firstTimestamp"] == event["lastTimestamp"]
    assert event["metadata"]["name"].startswith("web.")


async def test_a_repeated_event_is_counted(cluster: ApiCluster, recorder: EventRecorder) -> None:
    for version in "123":  # another version is no other object
        newer = {**POD, "metadata": {**POD["metadata"], "resourceVersion": version}}
        recorder.event(newer, "Normal", "Pulled", "again")
        await cluster.clock.sleep(60)
    await recorder.flush()
    [event] = await events(cluster)
    assert event["count"] == 3
    assert event["firstTimestamp"] < event["lastTimestamp"]


async def test_similar_events_are_combined(cluster: ApiCluster, recorder: EventRecorder) -> None:
    for number in range(20):
        recorder.event(POD, "Normal", "Noise", f"message {number}")
    await recorder.flush()
    found = await events(cluster)
    combined = [event for event in found if event["message"].startswith("(combined from similar events): ")]
    assert len(found) == 10
    assert [event["count"] for event in combined] == [11]
    assert combined[0]["message"].endswith("message 19")
    assert not combined[0].get("reportingComponent"), "of many nobody in particular is the author"


async def test_one_object_cannot_flood(cluster: ApiCluster, recorder: EventRecorder) -> None:
    for number in range(100):
        recorder.event(POD, "Normal", f"Reason{number}", "x")
    await recorder.flush()
    assert len(await events(cluster)) == 25
    await cluster.clock.sleep(301)
    recorder.event(POD, "Normal", "Later", "x")
    await recorder.flush()
    assert len(await events(cluster)) == 26


async def test_long_messages_are_cut_and_cluster_scoped_objects_go_to_default(
    cluster: ApiCluster, recorder: EventRecorder
) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "u2"}}
    recorder.event(node, "Normal", "Starting", "x" * 5000)
    await recorder.flush()
    [event] = await events(cluster)
    assert len(event["message"]) == 1024
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]


async def test_an_event_that_cannot_be_written_is_dropped(cluster: ApiCluster, recorder: EventRecorder) -> None:
    elsewhere = {**POD, "metadata": {**POD["metadata"], "namespace": "nowhere", "name": "x" * 300}}
    recorder.event(elsewhere, "Normal", "Lost", "x")
    recorder.event(POD, "Normal", "Kept", "x")
    await recorder.flush()
    assert [event["reason"] for event in await events(cluster)] == ["Kept"]


async def test_an_event_whose_record_is_gone_is_written_anew(cluster: ApiCluster, recorder: EventRecorder) -> None:
    recorder.event(POD, "Normal", "Pulled", "again")
    await recorder.flush()
    await cluster.client.delete_collection(EVENTS, "default")
    assert await events(cluster) == []
    await cluster.clock.sleep(1)
    recorder.event(POD, "Normal", "Pulled", "again")
    await recorder.flush()
    assert [event["count"] for event in await events(cluster)] == [1]
    assert await cluster.client.get(NAMESPACES, "default")
