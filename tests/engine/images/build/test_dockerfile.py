"""The syntax of Dockerfiles, and the words and patterns in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.engine.images.build import expand
from steersman.engine.images.build.dockerfile import DockerfileError, parse
from steersman.engine.images.build.ignore import Ignore, IgnorePatternError


def test_the_documents_own_example() -> None:
    text = (
        "FROM node:4.4\nLABEL maintainer=me\nRUN apk add \\\n    nodejs\ncopy . /src\nWORKDIR /src\nEXPOSE 8080\n"
        'ENTRYPOINT ["node", "./app.js"]\n'
    )
    found = parse(text)
    assert [each.keyword for each in found] == ["FROM", "LABEL", "RUN", "COPY", "WORKDIR", "EXPOSE", "ENTRYPOINT"]
    assert found[2].text.split() == ["apk", "add", "nodejs"]
    assert found[6].words == ("node", "./app.js")
    assert [each.line for each in found] == [1, 2, 3, 5, 6, 7, 8]


def test_flags_heredocs_escapes_and_windows_lines() -> None:
    text = (
        "# syntax=docker/dockerfile:1\r\n# escape=`\r\nFROM a AS b\r\nCOPY --from=b --chown=1:2 x y/\r\n"
        "RUN <<EOF\r\necho $HOME\r\nEOF\r\n"
        "COPY <<-'ONE' <<TWO /d/\r\n\tfirst\r\nONE\r\nsecond\r\nTWO\r\nRUN a `\r\n b\r\n"
    )
    found = parse(text)
    assert found[1].flags == (("from", "b"), ("chown", "1:2")) and found[1].text == "x y/"
    assert found[2].heredocs[0].content == "echo $HOME\n" and found[2].heredocs[0].expand
    assert [(each.name, each.content, each.expand) for each in found[3].heredocs] == [
        ("ONE", "first\n", False),
        ("TWO", "second\n", True),
    ]
    assert found[4].text.split() == ["a", "b"]


def test_what_looks_like_json_and_is_not_is_a_shell_form() -> None:
    assert parse("FROM a\nCMD ['x']\n")[1].words is None
    assert parse("FROM a\nCMD [1]\n")[1].words is None
    assert parse('FROM a\nCMD ["x"]  \n')[1].words == ("x",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "file with no instructions"),
        ("# only a comment\n", "file with no instructions"),
        ("FROM\n", "FROM requires at least one argument"),
        ("FROM a\nCOPY <<E /x\nno end\n", "unterminated heredoc"),
        ("# escape=x\nFROM a\n", "invalid ESCAPE 'x'"),
        ("FROM a\n\x00\n", "unknown instruction"),
    ],
)
def test_broken_files_are_refused(text: str, why: str) -> None:
    with pytest.raises(DockerfileError, match=why):
        parse(text)


@given(st.text(alphabet="FROM RUNCOPY\\\n\t#<E$\"'{}[]-=a ", max_size=120))
def test_noise_is_refused_calmly(text: str) -> None:
    try:
        for each in parse(text):
            expand.words(each.text, {"a": "b"}, each.escape)
    except DockerfileError:
        return


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${u:-$a}/x", "1/x"),
        ("${u-d}${e-d}${e:-d}", "dd"),
        ("${a:+${a}2}", "12"),
        ("${u+x}", ""),
        ("a b", "a b"),
        ('"a  $a"', "a  1"),
        (r'"\$a \"q\""', '$a "q"'),
        ("$a$a", "11"),
        ("$", "$"),
        ("$a.b", "1.b"),
    ],
)
def test_expansion(text: str, value: str) -> None:
    assert expand.expand(text, {"a": "1", "e": ""}) == value


@pytest.mark.parametrize("text", ["${", "${}", "${a", "${a%b}", "'open", '"open', "${u:?needed}"])
def test_broken_expansions_are_refused(text: str) -> None:
    with pytest.raises(DockerfileError):
        expand.expand(text, {"a": "1"})


def test_words_and_pairs() -> None:
    assert expand.words("a 'b c' d\\ e  $x", {"x": "f g"}) == ["a", "b c", "d e", "f g"]
    assert expand.pairs('a=1 b="2 3" c=$a', {"a": "x"}, "\\", "ENV") == [("a", "1"), ("b", "2 3"), ("c", "x")]
    assert expand.pairs("old way of it", {}, "\\", "ENV") == [("old", "way of it")]
    for broken in ("lonely", "a=1 b", "=x"):
        with pytest.raises(DockerfileError):
            expand.pairs(broken, {}, "\\", "ENV")


@pytest.mark.parametrize(
    ("rules", "ignored", "kept"),
    [
        (["*.md", "!README.md"], ["a.md"], ["README.md", "d/a.md"]),
        (["**/*.md"], ["a.md", "d/e/a.md"], ["a.txt"]),
        (["node_modules"], ["node_modules", "node_modules/a/b"], ["x/node_modules"]),
        (["/a/", "# no", "", "."], ["a", "a/b"], ["b", "# no"]),
        (["*", "!src", "src/tmp"], ["x", "src/tmp/a"], ["src/a"]),
        (["a?c", "[xy].z"], ["abc", "x.z"], ["ac", "z.z"]),
        (["a/**/z"], ["a/z", "a/b/c/z"], ["z"]),
    ],
)
def test_dockerignore(rules: list[str], ignored: list[str], kept: list[str]) -> None:
    ignore = Ignore(rules)
    assert [path for path in (*ignored, *kept) if ignore.ignores(path)] == ignored


def test_a_broken_ignore_pattern_is_refused() -> None:
    with pytest.raises(IgnorePatternError):
        Ignore(["[a"])
