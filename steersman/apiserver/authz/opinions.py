"""What an authorizer may say besides yes, which is None, and no opinion, which is the reason as a plain `str`.

Owns the two types and how problems of several are told. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence


class Deny(str):
    """The reason of a refusal that nobody after it can lift."""

    __slots__ = ()


class Failed(str):
    """No opinion, since it could not be asked: `problem` says why. The string is the reasons that there are even so."""

    __slots__ = ("problem",)
    problem: str

    def __new__(cls, reason: str, problem: str) -> Failed:
        """Both may be empty."""
        made = super().__new__(cls, reason)
        made.problem = problem
        return made


class FailedDeny(Failed, Deny):
    """A failure that refuses."""

    __slots__ = ()


def told(why: str) -> str:
    """What a refusal says where a failure is no failure of the whole request."""
    problem = why.problem if isinstance(why, Failed) else ""
    return f"{problem}: {why}" if problem and why else problem or str(why)


def together(opinions: Sequence[str]) -> str:
    """The opinion of several that had none."""
    text = "\n".join(filter(None, opinions))
    problems = list(dict.fromkeys(each.problem for each in opinions if isinstance(each, Failed)))
    if not problems:
        return text
    return Failed(text, problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
