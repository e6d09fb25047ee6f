"""Field selectors, and which fields are refused with which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api import fields
from steersman.api.fields import Getter


@dataclass
class Kind:
    """As much of a Kind as a field selector needs."""

    kind: str = "Pod"
    namespaced: bool = True
    custom: bool = False
    fields: Mapping[str, Getter] = field(
        default_factory=lambda: {
            "spec.nodeName": fields.text_at("spec", "nodeName"),
            "spec.hostNetwork": fields.flag_at("spec", "hostNetwork"),
            "status.replicas": fields.number_at("status", "replicas"),
        }
    )


POD = {"metadata": {"name": "a", "namespace": "ns"}, "spec": {"nodeName": "n1"}}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", True),
        ("metadata.name=a", True),
        ("metadata.name==a", True),
        ("metadata.name!=a", False),
        ("metadata.namespace=ns,metadata.name=a", True),
        ("spec.nodeName=n1", True),
        ("spec.host=n1", True),
        ("spec.nodeName=", False),
        ("spec.nodeName!=", True),
        ("spec.hostNetwork=false", True),
        ("status.replicas=0", True),
        (r"metadata.name=a\,b", False),
        ("metadata.name=a,,", True),
    ],
)
def test_selected(text: str, wanted: bool) -> None:
    assert fields.select(text, Kind()).matches(POD) is wanted


@pytest.mark.parametrize(
    ("text", "kind", "error"),
    [
        ("foo=bar", Kind(), "field label not supported: foo"),
        ("foo=bar", Kind(kind="Job"), 'field label "foo" not supported for Job'),
        (
            "foo=bar",
            Kind(fields={}),
            '"foo" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        ("foo=bar", Kind(fields={}, custom=True), "field label not supported: foo"),
        ("metadata.namespace=a", Kind(namespaced=False), "field label not supported: metadata.namespace"),
        ("metadata.name", Kind(), "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("a=b=c", Kind(), "invalid field selector: unescaped character in value: 61"),
        (r"a=b\c", Kind(), r"invalid field selector: invalid escape sequence: \c"),
        ("a=b\\", Kind(), "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_refused(text: str, kind: Kind, error: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        fields.select(text, kind)
    assert str(caught.value) == error


def test_exact_and_text() -> None:
    selector = fields.select("spec.nodeName=n1,metadata.name!=b", Kind())
    assert selector.exact("spec.nodeName") == "n1"
    assert selector.exact("metadata.name") is None
    assert str(selector) == "metadata.name!=b,spec.nodeName=n1"
    assert fields.select("", Kind()).everything


@given(st.text(alphabet="ab,=\\!", max_size=20))
def test_values_survive_escaping(value: str) -> None:
    term = fields.Term("metadata.name", value)
    assert fields.parse(str(term)) == (term,)
