"""Pods of one template differ by little more than the name of their token volume: what was seen once is known.

Owns the text by which a pod spec is remembered. Called by `validate.py` and `warnings.py`, which keep what they found.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

_TOKENS = re.compile(rb"kube-api-access-[a-z0-9]{5}\b")
_LONG = 8192  # bytes of a spec that is remembered


def text(spec: Mapping[str, Any]) -> bytes | None:
    """What specs have in common that nobody tells apart; None for one that is long, or judged by its pod's name too."""
    found = msgspec.json.encode(spec)
    if len(found) >= _LONG or "resourceClaims" in spec or b'"ephemeral":' in found:
        return None
    tokens = set(_TOKENS.findall(found))
    return found.replace(tokens.pop(), b"kube-api-access-xxxxx") if len(tokens) == 1 else found
