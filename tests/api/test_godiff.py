"""Unified diffs in refusals, recorded from kube-apiserver 1.36.3."""

from __future__ import annotations

from steersman.api.godiff import difference
from steersman.api.godump import dump


def test_only_what_differs_and_three_lines_around_it() -> None:
    old = {"image": {"reference": "x"}, "name": "v"}
    new = {"image": {"reference": "y", "pullPolicy": "Always"}, "name": "v"}
    shown = difference(dump(old, "v1:Volume"), dump(new, "v1:Volume"))
    assert shown == (
        "@@ -30,7 +30,7 @@\n"
        '  "CSI": null,\n'
        '  "Ephemeral": null,\n'
        '  "Image": {\n'
        '-  "Reference": "x",\n'
        '-  "PullPolicy": ""\n'
        '+  "Reference": "y",\n'
        '+  "PullPolicy": "Always"\n'
        "  }\n"
        " }\n"
    )


def test_empty_lists_and_maps_stand_on_one_line() -> None:
    assert difference({"a": []}, {"a": {}}) == '@@ -1,3 +1,3 @@\n {\n- "a": []\n+ "a": {}\n }\n'


def test_nothing_differs() -> None:
    assert difference({"a": [1]}, {"a": [1]}) == ""
