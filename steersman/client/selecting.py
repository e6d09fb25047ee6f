"""Who selects whom, without looking at everybody: indexes by label on both sides of a selector.

Owns two index functions and the two questions that they answer. Called by controllers whose objects choose
pods by labels: when one pod changes, their work must not grow with the namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from steersman.api import labels
from steersman.api.labels import Selector
from steersman.api.resource import Object
from steersman.client.informer import Informer

BY_LABEL = "label"  # the index of what is selected
BY_SELECTOR = "selector"  # the index of those who select

SelectorOf = Callable[[Object], Selector]


def file_by_label(obj: Object) -> Iterable[str]:
    """The index function of objects that are selected: one key a label."""
    meta = obj["metadata"]
    for key, value in (meta.get("labels") or {}).items():
        yield f"{meta.get('namespace') or ''}/{key}={value}"


def file_by_selector(selector_of: SelectorOf) -> Callable[[Object], Iterable[str]]:
    """The index function of objects that select: one label that they insist on, or none."""

    def keys(obj: Object) -> Iterable[str]:
        namespace = obj["metadata"].get("namespace") or ""
        try:
            selector = selector_of(obj)
        except ValueError:
            return
        if selector.requirements is not None:
            yield f"{namespace}/{next(selector.equal, '')}"

    return keys


def object_selector(obj: Object) -> Selector:
    """spec.selector as a metav1.LabelSelector. Raises ValueError."""
    return labels.from_object(obj["spec"].get("selector"))


def selected(informer: Informer, namespace: str, selector: Selector) -> list[Object]:
    """The objects of a namespace that the selector means; the informer has the index BY_LABEL."""
    if selector.requirements is None:
        return []
    narrowed = [informer.by_index(BY_LABEL, f"{namespace}/{term}") for term in selector.equal]
    candidates = min(narrowed, key=len) if narrowed else informer.list(namespace)
    return [each for each in candidates if selector.matches(each["metadata"].get("labels"))]


def selectors(informer: Informer, obj: Object, selector_of: SelectorOf = object_selector) -> Iterable[Object]:
    """The objects of the same namespace that select this one; the informer has the index BY_SELECTOR."""
    meta = obj["metadata"]
    namespace = meta.get("namespace") or ""
    for key in (f"{namespace}/", *file_by_label(obj)):
        for each in informer.by_index(BY_SELECTOR, key):
            if selector_of(each).matches(meta.get("labels")):
                yield each
