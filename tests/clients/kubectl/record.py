"""Writes what the original answers into the stories: `python -m tests.clients.kubectl.record KUBECONFIG [STORY...]`.

The cluster must be an original one, kube-apiserver and kube-controller-manager of the release that `test_matrix.py`
serves, without nodes. Stories leave nothing behind but their namespaces, which are deleted here.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.clients.kubectl.transcript import STORIES, Answer, Teller, stories
from tests.e2e.kubectl import EVERY_RELEASE, binary

_DEFAULTS = {"out": "", "err": "", "code": 0}


class _Literal(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Literal.add_representer(str, _text)


def _merged(answers: dict[str, Any], default: Any) -> Any:
    """One answer where all releases agree, else the first release of each."""
    changes: dict[str, Any] = {}
    for release, answer in answers.items():
        if not changes or list(changes.values())[-1] != answer:
            changes[release] = answer
    if len(changes) > 1:
        return changes
    only = next(iter(changes.values()))
    return None if only == default else only


def record(name: str, story: dict[str, Any], kubeconfig: Path) -> None:
    """Fill in one story's answers and write it."""
    told: list[dict[str, Answer]] = [{} for _ in story["steps"]]
    place = {id(step): number for number, step in enumerate(story["steps"])}
    for word in EVERY_RELEASE:
        release, where = f"1.{word[1:]}", f"{name}-{word}"
        with tempfile.TemporaryDirectory() as home:
            teller = Teller(binary(word), binary(EVERY_RELEASE[-1]), kubeconfig, Path(home), name)
            for step, answer in teller.tell(story, release):
                told[place[id(step)]][release] = answer
            teller.end()
        print(where, flush=True)
    for step, answers in zip(story["steps"], told, strict=True):
        for field, default in _DEFAULTS.items():
            step.pop(field, None)
            found = _merged({release: getattr(answer, field) for release, answer in answers.items()}, default)
            if found is not None:
                step[field] = found
    text = yaml.dump(story, Dumper=_Literal, sort_keys=False, width=200, allow_unicode=True)
    (STORIES / f"{name}.yaml").write_text(text)


if __name__ == "__main__":
    for name, story in stories().items():
        if name in sys.argv[2:] or not sys.argv[2:]:
            record(name, story, Path(sys.argv[1]))
