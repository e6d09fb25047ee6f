"""Sandboxes and containers on this machine, through an OCI runtime and conmon. `LocalRuntime` is the way in.

`purge` removes everything that one made, for `steer delete`; `share_mounts` prepares a directory of volumes.
"""

from steersman.engine.runtime.container import LayeredImages
from steersman.engine.runtime.prepare import share_mounts
from steersman.engine.runtime.purge import purge
from steersman.engine.runtime.runtime import LocalRuntime

__all__ = ["LayeredImages", "LocalRuntime", "purge", "share_mounts"]
