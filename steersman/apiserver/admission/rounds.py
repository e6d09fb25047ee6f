"""The two rounds of mutation: once something from outside changed an object, everybody built in looks again.

Owns which webhooks and policies are asked a second time. Made anew by the chain for every object that is admitted.
Pure. Source: apiserver's pkg/admission/reinvocation.go and the reinvocation contexts of its plugins.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import msgspec

from steersman.api.resource import Object

_encode = msgspec.json.Encoder(order="deterministic").encode


class Asked:
    """Whom one plugin asked: who wants to be asked again when something changes, and who must be."""

    def __init__(self) -> None:
        self._willing: set[Hashable] = set()
        self._due: set[Hashable] = set()
        self._left: bytes | None = None

    def due(self, who: Hashable) -> bool:
        """Whether it is asked in the second round."""
        return who in self._due

    def willing(self, who: Hashable) -> None:
        """It has been asked, and wants to be asked again after the next change."""
        self._willing.add(who)

    def changed(self) -> None:
        """The object changed: everybody who was asked before, and is willing, is due."""
        self._due |= self._willing
        self._willing = set()

    def resume(self, obj: Object) -> None:
        """The second round comes to this plugin: notices what others changed since `leave`."""
        if _encode(obj) != self._left:
            self.changed()

    def leave(self, obj: Object) -> None:
        """This plugin is done for this round."""
        self._left = _encode(obj)


@dataclass(slots=True)
class Rounds:
    """`second`: whether this is the second round; `wanted`: whether there must be one."""

    second: bool = False
    wanted: bool = False
    _asked: dict[str, Asked] = field(default_factory=dict)

    def asked(self, plugin: str) -> Asked:
        """What a plugin remembers of the first round."""
        return self._asked.setdefault(plugin, Asked())
