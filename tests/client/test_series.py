from __future__ import annotations

import msgspec
import pytest

from steersman.api.resource import EVENTS as ELDER
from steersman.api.resource import Object
from steersman.client.client import Client
from steersman.client.series import EVENTS, SeriesRecorder
from steersman.client.transport import InProcess
from steersman.lib.clock import LoopClock, parse_rfc3339
from steersman.lib.http.messages import ClientResponse, Headers, Response
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster

POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "7"},
}
OTHER: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db", "namespace": "default", "uid": "u2"}}
ABOUT = {
    "kind": "Pod", "namespace": "default", "name": "web", "uid": "u1", "apiVersion": "v1", "resourceVersion": "7",
}  # fmt: skip


@pytest.fixture
def recorder(cluster: ApiCluster, tasks: Tasks) -> SeriesRecorder:
    return SeriesRecorder(cluster.client, cluster.clock, tasks, controller="default-scheduler", host="m1")


async def events(cluster: ApiCluster) -> list[Object]:
    return (await cluster.client.list(EVENTS, "default")).items


async def test_an_event_says_who_did_what_to_whom_for_whom(cluster: ApiCluster, recorder: SeriesRecorder) -> None:
    now = cluster.clock.now()
    recorder.event(POD, "Normal", "Preempted", "Preempting", "Preempted by pod u2 on node n", OTHER)
    await recorder.flush()
    [event] = await events(cluster)
    assert event["regarding"] == ABOUT
    assert event["related"] == {"kind": "Pod", "namespace": "default", "name": "db", "uid": "u2", "apiVersion": "v1"}
    assert (event["reportingController"], event["reportingInstance"]) == ("default-scheduler", "default-scheduler-m1")
    assert (event["type"], event["reason"], event["action"]) == ("Normal", "Preempted", "Preempting")
    assert parse_rfc3339(event["eventTime"]) == pytest.approx(now, abs=1e-3)
    assert "series" not in event and not event.get("deprecatedCount")
    [elder] = (await cluster.client.list(ELDER, "default")).items
    assert elder["message"] == "Preempted by pod u2 on node n" and elder["involvedObject"] == ABOUT
    assert elder["reportingComponent"] == "default-scheduler" and elder["firstTimestamp"] is None


async def test_repeats_are_a_series_whose_end_is_written(cluster: ApiCluster, recorder: SeriesRecorder) -> None:
    for note in ("one", "two", "three", "four"):
        recorder.event(POD, "Warning", "FailedScheduling", "Scheduling", note)
        await cluster.clock.sleep(10)
    [event] = await events(cluster)
    assert (event["note"], event["series"]["count"]) == ("one", 2)  # later ones are counted first
    await cluster.clock.sleep(800)
    [event] = await events(cluster)
    assert event["series"]["count"] == 4
    assert parse_rfc3339(event["series"]["lastObservedTime"]) - parse_rfc3339(event["eventTime"]) == pytest.approx(
        30, 1
    )
    recorder.event(POD, "Warning", "FailedScheduling", "Scheduling", "anew")
    await recorder.flush()
    assert len(await events(cluster)) == 2


async def test_a_series_that_goes_on_is_written_now_and_then(cluster: ApiCluster, recorder: SeriesRecorder) -> None:
    for _ in range(50):
        recorder.event(POD, "Warning", "FailedScheduling", "Scheduling", "no")
        await cluster.clock.sleep(60)
    [event] = await events(cluster)
    assert 25 <= event["series"]["count"] < 50


async def test_a_new_version_of_the_object_is_another_event(cluster: ApiCluster, recorder: SeriesRecorder) -> None:
    later = {**POD, "metadata": {**POD["metadata"], "resourceVersion": "8"}}
    for each in (POD, later):
        recorder.event(each, "Warning", "FailedScheduling", "Scheduling", "no")
    recorder.named("second").event(POD, "Warning", "FailedScheduling", "Scheduling", "no")
    await recorder.flush()
    assert len(await events(cluster)) == 3


async def test_a_series_whose_event_is_gone_is_written_anew(cluster: ApiCluster, recorder: SeriesRecorder) -> None:
    recorder.event(POD, "Warning", "FailedScheduling", "Scheduling", "no")
    await recorder.flush()
    [event] = await events(cluster)
    await cluster.client.delete(EVENTS, event["metadata"]["name"], "default")
    recorder.event(POD, "Warning", "FailedScheduling", "Scheduling", "no")
    await recorder.flush()
    [event] = await events(cluster)
    assert event["series"]["count"] == 2


async def test_hostile_words(cluster: ApiCluster, recorder: SeriesRecorder) -> None:
    recorder.event(POD, "Normal", "Scheduled", "Binding", "x" * 5000)
    recorder.event({**POD, "metadata": {**POD["metadata"], "namespace": "Not A Name"}}, "Normal", "R", "A", "n")
    recorder.event(OTHER, "Normal", "Scheduled", "Binding", "after")
    await recorder.flush()
    notes = {event["note"] for event in await events(cluster)}
    assert notes == {"x" * 1020 + " ...", "after"}


async def test_a_crowd_is_written_by_several_and_each_story_in_order(tasks: Tasks) -> None:
    clock, flying, most, told = LoopClock(), 0, 0, []

    class Slow:
        """A transport that keeps each write for a while, a later one sometimes shorter."""

        async def request(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> ClientResponse:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            await clock.sleep(0.01 if len(told) % 3 else 0.03)
            flying -= 1
            event = msgspec.json.decode(body)
            told.append((event["regarding"]["name"], int(event["note"])))
            return await answer.request(method, target, headers, body)

    answer = InProcess(lambda request: Response(201, [], b"{}"))
    client = Client(Slow(), clock=clock, user_agent="test")  # type: ignore[arg-type]
    recorder = SeriesRecorder(client, clock, tasks, controller="default-scheduler", host="m1")
    for number in range(6000):
        pod: Object = {"kind": "Pod", "metadata": {"name": f"p{number % 700}", "uid": f"u{number % 700}"}}
        recorder.event(pod, "Normal", f"R{number}", "A", str(number))
    await recorder.flush()
    assert most == 3 and len(told) == 6000
    for name in {name for name, _ in told}:
        numbers = [number for of, number in told if of == name]
        assert numbers == sorted(numbers)


async def test_a_few_are_written_one_after_the_other(cluster: ApiCluster, recorder: SeriesRecorder) -> None:
    for number in range(20):
        recorder.event({**POD, "metadata": {**POD["metadata"], "name": f"p{number}"}}, "Normal", "R", "A", str(number))
    await recorder.flush()
    made = sorted(await events(cluster), key=lambda event: int(event["metadata"]["resourceVersion"]))
    assert [event["note"] for event in made] == [str(number) for number in range(20)]
