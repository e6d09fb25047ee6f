"""A whole control plane under virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersman.api.resource import CRONJOBS, JOBS, SERVICES
from steersman.cluster.plane import ControlPlane
from steersman.lib.clock import LoopClock
from steersman.lib.virtualtime import VirtualLoop


async def _six_hours(folder: Path) -> list[str]:
    """The jobs that an hourly CronJob has made in six hours."""
    clock = LoopClock()
    template = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}
    spec = {"schedule": "0 * * * *", "concurrencyPolicy": "Allow", "jobTemplate": template}
    async with ControlPlane(folder, clock=clock, listen=None) as plane:
        await plane.client.create(CRONJOBS, {"metadata": {"name": "hourly"}, "spec": spec}, "default")
        await clock.sleep(6 * 3600 + 60)
        return [item["metadata"]["name"] for item in (await plane.client.list(JOBS, "default")).items]


@pytest.mark.slow
@pytest.mark.parametrize("release", ["1.25", "1.26", "1.29", "1.31", "1.33", "1.35", "1.36"])
async def test_every_release_starts(tmp_path: Path, release: str) -> None:
    async with ControlPlane(tmp_path, listen=None, release=release) as plane:
        body = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
        assert (await plane.client.create(SERVICES, body, "default"))["spec"]["clusterIP"].startswith("10.96.")


@pytest.mark.slow
def test_six_hours_of_an_hourly_cron_job_pass_at_once(tmp_path: Path) -> None:
    loop = VirtualLoop()
    try:
        assert len(loop.run_until_complete(_six_hours(tmp_path))) == 6
        assert loop.time() >= 6 * 3600
    finally:
        loop.close()
