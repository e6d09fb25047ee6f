from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from steersman.api.resource import CRONJOBS, JOBS, Object
from steersman.client.workload import owner_reference
from steersman.controllers.cronjob import most_recent, plan, surplus
from steersman.controllers.cronjob.schedule import parse
from steersman.lib.clock import parse_rfc3339, rfc3339

from .conftest import World
from .objects import template


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def show(instant: float | None, zone: str = "UTC") -> str:
    return "never" if instant is None else datetime.fromtimestamp(instant, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("text", "since", "expected"),
    [
        ("* * * * *", "2026-01-01 00:00", "2026-01-01 00:01"),
        ("*/15 * * * *", "2026-01-01 00:14", "2026-01-01 00:15"),
        ("30 6-16/4 * * 1-5", "2026-01-02 14:30", "2026-01-05 06:30"),
        ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"),
        ("0 0 31 2 *", "2026-01-01 00:00", "never"),
        ("0 0 13 * FRI", "2026-01-01 00:00", "2026-01-02 00:00"),
        ("0 0 */2 * 5", "2026-01-01 00:00", "2026-01-09 00:00"),
        ("0 12 1 JAN,jul *", "2026-01-02 00:00", "2026-07-01 12:00"),
        ("@hourly", "2026-01-01 00:30", "2026-01-01 01:00"),
        ("@weekly", "2026-01-01 00:30", "2026-01-04 00:00"),
        ("@every 1h30m", "2026-01-01 00:30", "2026-01-01 02:00"),
        ("5/20 * * * *", "2026-01-01 00:06", "2026-01-01 00:25"),
    ],
)
def test_the_next_time(text: str, since: str, expected: str) -> None:
    assert show(parse(text, UTC).after(at(since))) == expected


def test_the_last_time_is_the_one_that_repeated_steps_reach() -> None:
    for text in ("*/7 * * * *", "0 */6 * * *", "15 3 * * *", "@every 45m"):
        schedule = parse(text, UTC)
        since, until = at("2026-01-01 00:00"), at("2026-01-20 10:01")
        step, last = since, None
        while (step := schedule.after(step) or until + 1) <= until:
            last = step
        assert most_recent(schedule, since, until)[0] == last


def test_after_a_pause_an_irregular_schedule_goes_on_with_its_next_time() -> None:
    office = parse("0 9-17 * * 1-5", UTC)
    friday, monday = at("2026-01-02 09:30"), at("2026-01-05 08:30")
    assert most_recent(office, friday, monday) == (None, False)
    assert show(most_recent(office, friday, at("2026-01-05 11:30"))[0]) == "2026-01-05 11:00"


def test_a_chain_of_distances_is_kept_whenever_one_looks() -> None:
    made = {**cronjob("@every 1h"), "status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}}
    assert round(plan(made, [], NOW).wait) == 35 * 60


def test_schedules_without_a_time_and_with_a_time_zone_are_complained_of() -> None:
    steps = plan(cronjob("0 0 31 2 *"), [], NOW)
    text = "invalid schedule: 0 0 31 2 * : time difference between two schedules is less than 1 second"
    assert (steps.events, steps.wait) == ([("Warning", "InvalidSchedule", text)], 0.0)
    steps = plan(cronjob("TZ=Asia/Tokyo 0 9 * * *"), [], NOW)
    assert [reason for _, reason, _ in steps.events] == ["UnsupportedSchedule"]
    assert show(NOW + steps.wait) == "2026-01-02 00:00"


def test_times_that_the_clocks_skip_or_repeat() -> None:
    zone = ZoneInfo("Europe/Berlin")
    assert (
        show(parse("30 2 * * *", zone).after(at("2026-03-28 12:00", "Europe/Berlin")), "Europe/Berlin")
        == "2026-03-30 02:30"
    )
    first = parse("30 2 * * *", zone).after(at("2026-10-24 12:00", "Europe/Berlin"))
    assert first is not None
    assert show(first, "Europe/Berlin") == "2026-10-25 02:30"
    assert show(parse("30 2 * * *", zone).after(first), "Europe/Berlin") == "2026-10-26 02:30"
    hourly = parse("30 * * * *", zone)
    assert (hourly.after(first) or 0) - first == 3600


@pytest.mark.parametrize(
    "text",
    [
        *("", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7"),
        *("*/0 * * * *", "5-1 * * * *", "a * * * *", "-1 * * * *", "\u0663 * * * *", f"{'9' * 99} * * * *"),
        *("@never", "@every", "@every x", "@every 1y", "TZ=Nowhere/City * * * * *"),
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def cronjob(schedule: str = "*/10 * * * *", **spec: Any) -> Object:
    return {
        "metadata": {"name": "cron", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": {"template": template(restartPolicy="Never")}}, **spec},
    }


NOW = at("2026-01-01 00:25")
ACTIVE = [{"name": "cron-1", "uid": "u"}]


@pytest.mark.parametrize(
    ("owner", "active", "start", "reasons"),
    [
        (cronjob(), [], "2026-01-01 00:20", []),
        (cronjob(suspend=True), [], "never", []),
        (cronjob("* * 31 12 *"), [], "never", []),
        (cronjob(startingDeadlineSeconds=100), [], "never", []),
        (cronjob(startingDeadlineSeconds=400), [], "2026-01-01 00:20", []),
        (cronjob(concurrencyPolicy="Forbid"), ACTIVE, "never", ["JobAlreadyActive"]),
        (cronjob(concurrencyPolicy="Replace"), ACTIVE, "2026-01-01 00:20", []),
        (cronjob(timeZone="Nowhere/City"), [], "never", ["UnknownTimeZone"]),
        (cronjob("nonsense"), [], "never", ["UnparseableSchedule"]),
        ({**cronjob(), "status": {"lastScheduleTime": "2026-01-01T00:20:00Z"}}, [], "never", []),
    ],
)
def test_what_is_due(owner: Object, active: list[Object], start: str, reasons: list[str]) -> None:
    steps = plan(owner, active, NOW)
    assert show(steps.start) == start
    assert [reason for _, reason, _ in steps.events] == reasons


def test_too_many_missed_times_are_told_and_the_last_is_started() -> None:
    steps = plan(cronjob("* * * * *"), [], NOW + 86400)
    assert show(steps.start) == "2026-01-02 00:25"
    assert [reason for _, reason, _ in steps.events] == ["TooManyMissedTimes"]


def test_history_beyond_its_limits() -> None:
    def ended(number: int, how: str) -> Object:
        conditions = [{"type": how, "status": "True"}]
        return {"metadata": {"name": f"{how}-{number}"}, "status": {"conditions": conditions, "startTime": str(number)}}

    jobs = [ended(number, how) for how in ("Complete", "Failed") for number in (3, 1, 2, 4)]
    gone = [job["metadata"]["name"] for job in surplus(cronjob(), jobs)]
    assert gone == ["Complete-1", "Failed-1", "Failed-2", "Failed-3"]
    assert surplus(cronjob(successfulJobsHistoryLimit=9, failedJobsHistoryLimit=9), jobs) == []


async def finish_jobs(world: World) -> None:
    while True:
        for job in await world.list(JOBS):
            if not (job.get("status") or {}).get("conditions"):
                stamp = rfc3339(world.clock.now())
                done = [
                    {"type": kind, "status": "True", "lastTransitionTime": stamp, "lastProbeTime": stamp}
                    for kind in ("SuccessCriteriaMet", "Complete")
                ]
                await world.set_status(
                    JOBS,
                    job,
                    conditions=done,
                    startTime=stamp,
                    completionTime=stamp,
                    succeeded=1,
                    uncountedTerminatedPods={},
                )
        await world.clock.sleep(60)


async def test_a_day_of_hours(world: World) -> None:
    world.start("cronjob-controller")
    world.tasks.spawn(finish_jobs(world), "jobs")
    body = cronjob("0 * * * *", successfulJobsHistoryLimit=2)
    body["metadata"] = {"name": "cron"}
    await world.client.create(CRONJOBS, body, "default")
    began = world.clock.now()
    await world.settle(24 * 3600 + 90)
    created = [message for reason, message in await world.events() if reason == "SuccessfulCreate"]
    jobs = await world.list(JOBS)
    assert len(jobs) == 2
    found = await world.get(CRONJOBS, "cron")
    last = parse_rfc3339(found["status"]["lastScheduleTime"])
    assert last % 3600 == 0
    assert world.clock.now() - last < 3600
    assert found["status"]["lastSuccessfulTime"] >= found["status"]["lastScheduleTime"]
    assert "active" not in found["status"]
    assert len(created) >= 10, "the recorder lets a burst pass and holds back the rest"
    assert world.clock.now() - began >= 24 * 3600
    assert jobs[-1]["metadata"]["name"] == f"cron-{int(last) // 60}"
    stamp = jobs[-1]["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
    assert stamp == found["status"]["lastScheduleTime"]


async def test_replace_and_missing_jobs(world: World) -> None:
    world.start("cronjob-controller")
    body = cronjob("*/5 * * * *", concurrencyPolicy="Replace")
    body["metadata"] = {"name": "cron"}
    await world.client.create(CRONJOBS, body, "default")
    await world.settle(301)
    [first] = await world.names(JOBS)
    assert (await world.get(CRONJOBS, "cron"))["status"]["active"][0]["name"] == first
    await world.settle(300)
    [second] = await world.names(JOBS)
    assert second != first
    await world.client.delete(JOBS, second, "default", propagation="Background")
    await world.settle(5)
    assert "active" not in (await world.get(CRONJOBS, "cron"))["status"]
    assert "MissingJob" in [reason for reason, _ in await world.events()]


async def test_jobs_that_somebody_else_makes_and_jobs_that_end_are_told_of(world: World) -> None:
    world.start("cronjob-controller")
    body = cronjob("*/5 * * * *", successfulJobsHistoryLimit=0)
    body["metadata"] = {"name": "cron"}
    owner = await world.client.create(CRONJOBS, body, "default")
    made = {"metadata": {"name": "by-hand"}, "spec": owner["spec"]["jobTemplate"]["spec"]}  # kubectl create job --from
    made["metadata"]["ownerReferences"] = [owner_reference(owner, CRONJOBS)]
    await world.client.create(JOBS, made, "default")
    await world.settle()
    text = "Saw a job that the controller did not create or forgot: by-hand"
    assert ("UnexpectedJob", text) in await world.events()
    await world.client.delete(JOBS, "by-hand", "default", propagation="Background")
    await world.settle(400)
    [name] = await world.names(JOBS)
    world.tasks.spawn(finish_jobs(world), "jobs")
    await world.settle(70)
    told = await world.events()
    assert ("SuccessfulDelete", f"Deleted job {name}") in told
    assert all(reason != "SawCompletedJob" for reason, _ in told), "it went with the history, before it was looked at"
    assert await world.names(JOBS) == []
    await world.client.patch(CRONJOBS, "cron", "default", {"spec": {"successfulJobsHistoryLimit": 3}})
    await world.settle(300)
    assert any(text.endswith("condition: Complete") for why, text in await world.events() if why == "SawCompletedJob")
