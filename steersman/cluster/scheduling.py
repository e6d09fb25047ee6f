"""The scheduler's settings: what `--extra-config=scheduler.*` says.

Owns the reading of its configuration file. Called by `steer up`, which refuses what cannot work, and by the process of
the scheduler.
"""

from __future__ import annotations

from pathlib import Path

from steersman.cluster.profile import Profile, ProfileError
from steersman.scheduler.configuration import Configuration, ConfigurationError, load, named


def configuration(profile: Profile) -> Configuration:
    """The configuration that the profile asks for. Raises ProfileError in the original's words."""
    options = profile.options("scheduler")
    if path := options.get("config"):
        try:
            return load(Path(path).read_bytes())
        except (OSError, ConfigurationError) as error:
            raise ProfileError(f"invalid value for --extra-config: scheduler.config={path}: {error}") from None
    return named(options["scheduler-name"]) if options.get("scheduler-name") else Configuration()


def check(profile: Profile) -> None:
    """Refuse a configuration file that no scheduler could start with. Raises ProfileError in the original's words."""
    if not profile.options("scheduler").get("config"):
        return
    from steersman.scheduler.profiles import make_all  # NumPy takes long to import: only who asks for it pays

    try:
        make_all(configuration(profile))
    except ConfigurationError as error:
        raise ProfileError(f"invalid value for --extra-config: scheduler.config: {error}") from None
