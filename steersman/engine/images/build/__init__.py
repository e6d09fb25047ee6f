"""Images from Dockerfiles. `build` is the way in."""

from steersman.engine.images.build.builder import BuildFailed, build

__all__ = ["BuildFailed", "build"]
