"""Whose names are whose among custom resource definitions, and what their conditions say."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api import definitions
from steersman.api.resource import Object


def definition(plural: str, accepted: Object | None = None, **names: Any) -> Object:
    spec = {"group": "e.com", "names": {"plural": plural, "singular": plural[:-1], "kind": plural.title(), **names}}
    return {"metadata": {"name": f"{plural}.e.com"}, "spec": spec, "status": {"acceptedNames": accepted or {}}}


def settled(plural: str, **names: Any) -> Object:
    made = definition(plural, **names)
    made["status"]["acceptedNames"] = made["spec"]["names"]
    return made


def test_names_that_nobody_has_are_accepted() -> None:
    mine = definition("boats", shortNames=["bo"], listKind="BoatsList", categories=["all"])
    names, found = definitions.accept(mine, [settled("ships", shortNames=["sh"])])
    assert names == mine["spec"]["names"] and (found["status"], found["reason"]) == ("True", "NoConflicts")


@pytest.mark.parametrize(
    ("names", "reason", "message"),
    [
        ({"singular": "sh"}, "SingularConflict", '"sh" is already in use'),
        ({"shortNames": ["ships", "b", "ship"]}, "ShortNamesConflict", '["ships" is already in use, "ship" is already'),
        ({"kind": "Ships"}, "KindConflict", '"Ships" is already in use'),
        ({"listKind": "Ships"}, "ListKindConflict", '"Ships" is already in use'),
    ],
)
def test_names_of_others_are_not(names: Object, reason: str, message: str) -> None:
    mine = definition("boats", accepted={"kind": "Boats", "plural": "boats"}, **names)
    got, found = definitions.accept(mine, [settled("ships", shortNames=["sh"])])
    assert (found["status"], found["reason"]) == ("False", reason) and found["message"].startswith(message)
    assert got["plural"] == "boats" and got["kind"] == "Boats"
    assert definitions.established(found)["reason"] == "NotAccepted"


def test_other_groups_have_names_of_their_own() -> None:
    other = settled("boats")
    other["spec"]["group"] = "f.com"
    assert definitions.accept(definition("boats"), [other])[1]["status"] == "True"


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("", "False", "MissingAnnotation"),
        ("unapproved, for a test", "False", "UnapprovedAnnotation"),
        ("https://github.com/kubernetes/kubernetes/pull/78458", "True", "ApprovedAnnotation"),
        ("http://[", "False", "InvalidAnnotation"),
    ],
)
def test_groups_of_kubernetes_need_approval(text: str, status: str, reason: str) -> None:
    mine = definition("boats")
    mine["spec"]["group"] = "sea.k8s.io"
    mine["metadata"]["annotations"] = {definitions.APPROVED: text} if text else {}
    found = definitions.approval(mine)
    assert found is not None and (found["status"], found["reason"]) == (status, reason)
    assert bool(definitions.check_approval(mine)) is (reason in ("MissingAnnotation", "InvalidAnnotation"))
    assert definitions.check_approval(mine, mine) == [] and definitions.approval(definition("boats")) is None


def test_a_conditions_time_is_that_of_its_last_change() -> None:
    status: Object = {}
    good = {"type": "A", "status": "True", "reason": "R", "message": ""}
    definitions.set_condition(status, good, "1")
    definitions.set_condition(status, {**good, "reason": "S"}, "2")
    assert status["conditions"] == [{**good, "reason": "S", "lastTransitionTime": "1"}]
    definitions.set_condition(status, {**good, "status": "False"}, "3")
    assert status["conditions"][0]["lastTransitionTime"] == "3"
