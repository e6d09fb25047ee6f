"""YAML as the original writes it.

Owns the choice of quotes: many lines stand as they are, what could be read as something else than a string has double
quotes. Called by the API server and `client.zpages`, and imported only when somebody asks for YAML. Source: go-yaml's
encoder.
"""

from __future__ import annotations

from typing import Any

import yaml

_STRING = "tag:yaml.org,2002:str"
_ODD = frozenset("yYnN")  # truth in YAML 1.1, to Go but not to PyYAML


class _Dumper(yaml.CSafeDumper):
    """With the quotes of go-yaml."""


def _text(dumper: Any, text: str) -> Any:
    style = None
    if "\n" in text:
        style = "|"
    elif text in _ODD or dumper.resolve(yaml.ScalarNode, text, (True, False)) != _STRING:
        style = '"'
    return dumper.represent_scalar(_STRING, text, style=style)


_Dumper.add_representer(str, _text)


def dump(document: Any) -> bytes:
    """The document, keys sorted."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=True, allow_unicode=True).encode()
