"""Sandboxes and containers on this machine, through an OCI runtime and conmon. `LocalRuntime` is the way in."""

from steersman.engine.runtime.runtime import LocalRuntime

__all__ = ["LocalRuntime"]
