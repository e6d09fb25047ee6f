"""How a cluster's processes tell the command that started them how they get on.

Owns one line of JSON on a pipe. Written by `components.py`, read by `launch.py`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """A child's way to tell the command that started it how it gets on."""

    descriptor: int

    def say(self, what: str, name: str, text: str = "") -> None:
        """Send one line; nobody listening any more is fine."""
        try:
            os.write(self.descriptor, (json.dumps([what, name, text]) + "\n").encode())
        except OSError:
            return
