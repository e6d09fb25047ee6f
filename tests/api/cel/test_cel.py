"""CEL: values, errors, types, costs and hostile expressions, against what cel-go gives."""

from __future__ import annotations

from typing import Any

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api import cel
from steersman.api.cel.syntax import CostError
from steersman.api.cel.types import DYN, INT, STRING, Type, list_of, map_of, object_of

FIELDS = {"x": INT, "s": STRING, "l": list_of(INT), "m": map_of(STRING, INT)}
TYPES = {"self": object_of("object", FIELDS.get), "o": DYN}
VALUES = {"self": {"x": 3, "s": "hi", "l": [1, 2, 3], "m": {"a": 1}}, "o": {"a": {"b": [1, "x"]}, "n": None}}


def run(source: str, limit: int = 1_000_000) -> Any:
    return cel.compile(source, TYPES, structs=True).evaluate(VALUES, limit=limit)[0]


@pytest.mark.parametrize(
    "source",
    [
        "self.x + 1 == 4",
        "1/0 == 1 || true",
        "!(1/0 == 1 && false)",
        "self.l.all(i, i > 0) && 2 in self.l && !(4 in self.l)",
        "'a' in self.m && !('b' in self.m)",
        "self.m.exists(k, k == 'a') && self.l.exists_one(i, i == 2)",
        "self.l.map(i, i * 2) == [2, 4, 6] && self.l.map(i, i > 1, i) == [2, 3] && self.l.filter(i, i > 1) == [2, 3]",
        "self.l.transformMap(i, v, v > 1, v) == {1: 2, 2: 3} && self.l.transformList(i, v, i + v) == [1, 3, 5]",
        "-9223372036854775808 < 0 && 18446744073709551615u > 0u",
        "-7 / 2 == -3 && -7 % 2 == -1 && 7 % -2 == 1",
        "dyn(1) == 1.0 && dyn(1) == 1u && 1 < 1.5 && dyn(1) != '1' && dyn(true) != 1",
        "has(o.a.b) && !has(o.q) && o.n == null",
        "o.?q.orValue(5) == 5 && o.?a.?b[?1].value() == 'x' && optional.of(2).optMap(v, v * 2).value() == 4",
        "'%s is %d, %.2f, %x'.format(['a', 3, 1.5, 255]) == 'a is 3, 1.50, ff'",
        r"'\u00e9\x41\101\n' == 'éAA' + '\n' && r'\n'.size() == 2 && b'\xff'.size() == 1 && '''a'b'''.size() == 3",
        "quantity('1Gi').isGreaterThan(quantity('1M')) && quantity('1500m').add(1).compareTo(quantity('2.5')) == 0",
        "ip('::1').isLoopback() && ip('1.2.3.4').family() == 4 && !isIP('1.2.3') && string(ip('1.2.3.4')) == '1.2.3.4'",
        "cidr('10.0.0.0/8').containsIP('10.1.1.1') && !cidr('10.0.0.0/8').containsCIDR('0.0.0.0/0')",
        "url('https://a.b:80/p?q=1').getPort() == '80' && url('https://a.b/p?q=1').getQuery() == {'q': ['1']}",
        "duration('1h') + duration('90s') == duration('61m30s') && duration('-1.5s').getSeconds() == -1",
        "timestamp('2024-02-29T23:30:00Z').getDate('+01:00') == 1 && timestamp(0) < timestamp('2024-01-01T00:00:00Z')",
        "timestamp('2024-01-01T00:00:00Z') - timestamp('2023-12-31T00:00:00Z') == duration('24h')",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-a').isLessThan(semver('1.0.0'))",
        "format.dns1123Label().validate('A_').hasValue() && format.named('uuid').value().validate('x').hasValue()",
        "sets.contains([1, 2], [1]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])",
        "[1, 2, 3].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && ['a', 'b'].indexOf('b') == 1",
        "'abc'.matches('^a.c$') && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1'.find('[0-9]') == '1'",
        "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && 'Ab'.lowerAscii() == 'ab'",
        "type(1) == int && type('') == string && type(duration('1s')) == google.protobuf.Duration",
        "int('42') == 42 && string(1.0) == '1' && double('1e3') == 1000.0 && uint(3) == 3u && bool('true')",
        "{'a': {'b': 1}}.a.b == 1 && {?'x': o.?q} == {} && [?o.?q, dyn(1)] == [1]",
        "[3, 1, 2].sortBy(x, -x) == [3, 2, 1] && [[2, 1], [1, 5]].sortBy(x, x[1]) == [[2, 1], [1, 5]]",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
        "0.0 == -0.0 && 1.0 / 0.0 > 1e308 && '😀'.size() == 1",
    ],
)
def test_holds(source: str) -> None:
    assert run(source) is True


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("9223372036854775807 + 1 == 0", "integer overflow"),
        ("0u - 1u == 0u", "unsigned integer overflow"),
        ("-(-9223372036854775808) == 0", "integer overflow"),
        ("1 / 0 == 1", "division by zero"),
        ("1 % 0 == 1", "modulus by zero"),
        ("o.missing == 1", "no such key: missing"),
        ("self.l[3] == 1", "index out of bounds: 3"),
        ("int('1_0') == 10", "invalid syntax"),
        ("timestamp(string('2024-13-01T00:00:00Z')) == timestamp(0)", "cannot parse"),
        ("duration(string('1x')) == duration('1s')", 'time: invalid duration "1x"'),
        ("'a'.matches(string('('))", "error parsing regexp"),
        ("'%d'.format(['x']) == ''", "integer clause cannot be used on string"),
        ("o.a > 1", "no such overload"),
        ("self.l.transformMapEntry(i, v, o.a.b[0]) == {}", "no such overload"),
        ("optional.none().value() == 1", "optional.none() dereference"),
    ],
)
def test_has_no_value(source: str, text: str) -> None:
    with pytest.raises(cel.CelError, match=r".*") as caught:
        run(source)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("self.z == 100", "ERROR: <input>:1:5: undefined field 'z'\n | self.z == 100\n | ....^"),
        ("self = 42", "ERROR: <input>:1:6: Syntax error: token recognition error at: '= '\n | self = 42\n | .....^"),
        ("foo", "undeclared reference to 'foo' (in container '')"),
        ("self.x > 'a'", "found no matching overload for '_>_' applied to '(int, string)'"),
        ("self.s.startsWith(3)", "found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ("1 == 1.0", "found no matching overload for '_==_' applied to '(int, double)'"),
        ("self.x.foo", "type 'int' does not support field selection"),
        ("self.x.all(i, true)", "cannot be range of a comprehension"),
        ("has(self)", "invalid argument to has() macro"),
        ("self.x +", "Syntax error: mismatched input '<EOF>'"),
        ("'abc", "Syntax error: token recognition error"),
        ("9223372036854775808 > 0", "invalid int literal"),
        ("if", "reserved identifier: if"),
        ("Object{}", "undeclared reference to 'Object'"),
    ],
)
def test_does_not_compile(source: str, text: str) -> None:
    with pytest.raises(cel.CompileError) as caught:
        cel.compile(source, TYPES)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "source",
    ["(" * 90_000, "[" * 1000 + "]" * 1000, "1" + "+1" * 40_000, "o" + ".a" * 40_000, "x" * 200_000,
     "true?" * 5000, "f(" * 5000, "{1:" * 5000, "9" * 90_000],
)  # fmt: skip
def test_a_hostile_text_is_an_error(source: str) -> None:
    with pytest.raises(cel.CompileError):
        cel.compile(source, TYPES)


def test_many_terms_are_no_depth() -> None:
    assert run(" || ".join(["self.x == 9"] * 3000) + " || true") is True


def test_a_catastrophic_pattern_is_quick() -> None:
    assert run(f"'{'a' * 5000}b'.matches('^(a+)+$')") is False


def test_cost_is_counted_and_bounded() -> None:
    source = "[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, a + b + c > 0)))"
    with pytest.raises(CostError, match="operation cancelled: actual cost limit exceeded"):
        run(source, limit=3000)
    assert run(source) is True


SMALL = {"self": list_of(Type("string", (), 10), 10)}
LARGE = {"self": list_of(STRING, 3_000_000)}


def test_the_estimate_knows_the_sizes() -> None:
    small = cel.compile("self.all(s, s == 'abc')", SMALL)
    large = cel.compile("self.all(s, s == 'abc')", LARGE)
    assert small.estimate(SMALL.get) < 200 < 10_000_000 < large.estimate(LARGE.get)
