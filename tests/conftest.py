"""What every test has in common."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How fast examples are drawn says something about the machine, nothing about the code.
settings.register_profile("steersman", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steersman")
