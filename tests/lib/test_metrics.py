"""The Prometheus text, byte for byte."""

from __future__ import annotations

import pytest

from steersman.lib.metrics import Registry


def test_the_text_format() -> None:
    registry = Registry()
    requests = registry.counter("requests_total", "Requests, by verb.", ["verb", "code"])
    requests.labels("get", "200").inc()
    requests.labels("get", "200").inc(2)
    requests.labels('od"d\\\n', "500").inc(0.5)
    depth = registry.gauge("depth", "Depth\nof a queue.").labels()
    depth.set(3)
    depth.dec()
    seconds = registry.histogram("seconds", "Latency.", ["verb"], bounds=(1.0, 0.1))
    for value in (0.05, 0.1, 0.5, 1.0, 7):
        seconds.labels("get").observe(value)
    assert registry.text() == (
        "# HELP depth Depth\\nof a queue.\n"
        "# TYPE depth gauge\n"
        "depth 2\n"
        "# HELP requests_total Requests, by verb.\n"
        "# TYPE requests_total counter\n"
        'requests_total{code="200",verb="get"} 3\n'
        'requests_total{code="500",verb="od\\"d\\\\\\n"} 0.5\n'
        "# HELP seconds Latency.\n"
        "# TYPE seconds histogram\n"
        'seconds_bucket{verb="get",le="0.1"} 2\n'
        'seconds_bucket{verb="get",le="1"} 4\n'
        'seconds_bucket{verb="get",le="+Inf"} 5\n'
        'seconds_sum{verb="get"} 8.65\n'
        'seconds_count{verb="get"} 5\n'
    )


def test_children_are_kept_and_forgotten() -> None:
    registry = Registry()
    family = registry.gauge("pods", "Pods.", ["node"])
    family.labels("a").set(1)
    assert family.labels("a").value == 1
    family.forget("a")
    family.forget("a")
    assert "pods{" not in registry.text()


def test_what_is_wrong_is_said() -> None:
    registry = Registry()
    family = registry.counter("x_total", "X.", ["a"])
    with pytest.raises(ValueError, match="1 labels, not 2"):
        family.labels("1", "2")
    with pytest.raises(ValueError, match="exists already"):
        registry.gauge("x_total", "X again.")


def test_collectors_run_before_every_print() -> None:
    registry = Registry()
    gauge = registry.gauge("n", "N.").labels()
    registry.collect(gauge.inc)
    registry.text()
    assert registry.text().endswith("n 2\n")
    assert Registry().text() == ""


def test_special_numbers_are_printed() -> None:
    registry = Registry()
    family = registry.gauge("g", "G.", ["n"])
    for name, value in (("inf", float("inf")), ("minus", float("-inf")), ("nan", float("nan")), ("large", 1e300)):
        family.labels(name).set(value)
    text = registry.text()
    assert 'g{n="inf"} +Inf' in text
    assert 'g{n="minus"} -Inf' in text
    assert 'g{n="nan"} NaN' in text
    assert 'g{n="large"} 1e+300' in text
