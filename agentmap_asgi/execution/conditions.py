"""The closed grammar of `when`: names, literals, comparisons, and/or/not, parentheses.

    condition  = or_test
    or_test    = and_test { "or" and_test }
    and_test   = not_test { "and" not_test }
    not_test   = "not" not_test | comparison
    comparison = operand [ ("==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not" "in") operand ]
    operand    = literal | name { "." name } | "[" [ operand { "," operand } ] "]" | "(" condition ")"

A missing field is null. Values of unlike types are not equal and neither is less; `in` looks into a list, a text or
the keys of an object, and is false for anything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from .fields import MISSING, Getter, Position, getter
from .templates import NAME

MAX_LENGTH: Final = 4096
MAX_DEPTH: Final = 50

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    rf"|(?P<name>{NAME})"
    r"|(?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,))"
)
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None, "none": None}
_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})


class ConditionError(ValueError):
    """A condition does not follow the grammar; `offset` is the 0-based character, `hint` what to write instead."""

    def __init__(self, message: str, offset: int, hint: str = "") -> None:
        self.offset = offset
        self.hint = hint
        super().__init__(f"{message} at character {offset + 1}")


class Condition:
    """A parsed condition. `names` are the fields it reads; `samples` values with which a comparison of one holds."""

    __slots__ = ("_build", "names", "samples")

    def __init__(self, text: str) -> None:
        parser = _Parser(text)
        self._build = parser.condition()
        parser.expect_end()
        self.names = tuple(dict.fromkeys(parser.names))
        self.samples = parser.samples()

    def compile(self, find: Callable[[str], Getter] = getter) -> Callable[[dict[str, Any], Position], bool]:
        """A function that decides the condition over a state; `find` turns a name into its getter."""
        test = self._build(find)
        return lambda values, position: truth(test(values, position))


_Build = Callable[[Callable[[str], Getter]], Getter]


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise ConditionError(f"The condition is longer than {MAX_LENGTH} characters", MAX_LENGTH)
        self.names: list[str] = []
        self._tokens: list[tuple[str, str, int]] = []
        self._at = 0
        self._depth = 0
        end = len(text.rstrip())
        position = 0
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                start = position + len(text[position:]) - len(text[position:].lstrip())
                raise ConditionError(f"Unexpected {text[start]!r}", start, _hint(text[start:]))
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind], match.start(kind)))
            position = match.end()
        self._end = end

    def samples(self) -> dict[str, Any]:
        """For names that are compared with a literal right of them, a value that fits."""
        found: dict[str, Any] = {}
        words = [(kind, text) for kind, text, _ in self._tokens if text != "["]
        for (kind, name), (_, operator), (literal, text) in zip(words, words[1:], words[2:], strict=False):
            if kind == "name" and operator in _COMPARISONS - {"!="} and literal in ("number", "text"):
                step = {">": 1, "<": -1}.get(operator, 0)
                found.setdefault(name, _number(text) + step if literal == "number" else _unquoted(text))
        return found

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "", self._end)

    def _accept(self, *texts: str) -> str | None:
        kind, text, _ = self._peek()
        if kind in ("sign", "name") and text in texts:
            self._at += 1
            return text
        return None

    def _expect(self, text: str) -> None:
        if self._accept(text) is None:
            kind, found, offset = self._peek()
            raise ConditionError(
                f"Expected {text!r} " + ("before the end" if kind == "end" else f"instead of {found!r}"),
                offset,
                "A list is written in brackets: region in ['EU', 'CH']." if found == "," else "",
            )

    def expect_end(self) -> None:
        kind, text, offset = self._peek()
        if kind != "end":
            before = self._tokens[self._at - 1][0] if self._at else ""
            hint = "" if kind in ("number", "text") else _hint(text)
            if text in _COMPARISONS:
                hint = _JOINED
            elif kind == before == "name":
                hint = hint or _NEXT_TO_A_NAME
            raise ConditionError(f"Unexpected {text!r}", offset, hint)

    def condition(self) -> _Build:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConditionError("Too deeply nested", self._peek()[2])
        build = self._or()
        self._depth -= 1
        return build

    def _or(self) -> _Build:
        parts = [self._and()]
        while self._accept("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else _any_of(parts)

    def _and(self) -> _Build:
        parts = [self._not()]
        while self._accept("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else _all_of(parts)

    def _not(self) -> _Build:
        negations = 0
        while self._accept("not"):
            negations += 1
        build = self._comparison()
        return _negated(build) if negations % 2 else build

    def _comparison(self) -> _Build:
        left = self._operand()
        operator = self._accept(*_COMPARISONS)
        if operator is None and self._peek()[1] == "not" and self._peek()[0] == "name":
            self._at += 1
            self._expect("in")
            return _negated(_compared("in", left, self._operand()))
        return left if operator is None else _compared(operator, left, self._operand())

    def _operand(self) -> _Build:
        kind, text, offset = self._peek()
        self._at += 1
        if kind == "number":
            return _constant(_number(text))
        if kind == "text":
            return _constant(_unquoted(text))
        if kind == "name":
            if text.lower() in _WORDS:
                return _constant(_WORDS[text.lower()])
            if text not in ("and", "or", "not", "in"):
                self.names.append(text)
                return lambda find: _null_for_missing(find(text))
        if text == "(" and kind == "sign":
            inner = self.condition()
            self._expect(")")
            return inner
        if text == "[" and kind == "sign":
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise ConditionError("Too deeply nested", offset)
            items: list[_Build] = []
            while not self._accept("]"):
                if items:
                    self._expect(",")
                items.append(self._operand())
            self._depth -= 1
            return _listed(items)
        self._at -= 1
        raise ConditionError(
            "Expected a name or a value " + ("before the end" if kind == "end" else f"instead of {text!r}"),
            offset,
            _hint(text),
        )


_RENAMED = "give the field another name in Input_Fields, like {}, and use that one."
_COMPUTED: Final = "There is no arithmetic: have a node before compute the value."
_NEXT_TO_A_NAME: Final = f"A name has no spaces: {_RENAMED.format('Order ID:order_id')}"
_JOINED: Final = "Join comparisons by and: low < x and x < high."
_HINTS: Final = (
    (r"=>", "Write >= for at least."),
    (r">", "Write != for not equal."),
    (r"=", "Write == to compare."),
    (r"!", "Write not, or != for not equal."),
    (r"&|(?i:and\b)", "Write and, in small letters."),
    (r"\||(?i:or\b)", "Write or, in small letters."),
    (r"(?i:not\b)", "Write not, in small letters."),
    (r"(?i:in\b)", "Write in, in small letters."),
    (r"is\b", "Write == null, or == and the value."),
    (r"-", f"{_COMPUTED} A name may hold - but not begin with it."),
    (r"[+*/%^]", _COMPUTED),
    (r"\d", f"A name begins with a letter or _: {_RENAMED.format('2nd:second')}"),
    (r"\[", "Write l.0 for the first item of l."),
    (r"\(", "There are no functions: have a node before compute the value."),
    (r"[{}$]", "Write the field's name alone, without braces or other signs."),
    (r"['\"]", "A text stands between two quotes of one kind; a quote inside it is written \\' or \\\"."),
)
"""What to write instead of something that is not in the grammar, by how it begins."""


def _hint(rest: str) -> str:
    return next((hint for begin, hint in _HINTS if re.match(begin, rest)), "")


def _number(text: str) -> int | float:
    return float(text) if re.search(r"[.eE]", text) else int(text)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _constant(value: Any) -> _Build:
    return lambda find: lambda values, position: value


def _null_for_missing(get: Getter) -> Getter:
    def read(values: dict[str, Any], position: Position) -> Any:
        value = get(values, position)
        return None if value is MISSING else value

    return read


def _listed(items: list[_Build]) -> _Build:
    def build(find: Callable[[str], Getter]) -> Getter:
        gets = [item(find) for item in items]
        return lambda values, position: [get(values, position) for get in gets]

    return build


def _any_of(parts: list[_Build]) -> _Build:
    def build(find: Callable[[str], Getter]) -> Getter:
        tests = [part(find) for part in parts]
        return lambda values, position: any(truth(test(values, position)) for test in tests)

    return build


def _all_of(parts: list[_Build]) -> _Build:
    def build(find: Callable[[str], Getter]) -> Getter:
        tests = [part(find) for part in parts]
        return lambda values, position: all(truth(test(values, position)) for test in tests)

    return build


def _negated(part: _Build) -> _Build:
    def build(find: Callable[[str], Getter]) -> Getter:
        test = part(find)
        return lambda values, position: not truth(test(values, position))

    return build


def _compared(operator: str, left: _Build, right: _Build) -> _Build:
    compare = _OPERATORS[operator]

    def build(find: Callable[[str], Getter]) -> Getter:
        get_left, get_right = left(find), right(find)
        return lambda values, position: compare(get_left(values, position), get_right(values, position))

    return build


def truth(value: Any) -> bool:
    """null, false, 0, and empty texts, lists and objects are false."""
    return bool(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, int | float) else type(value).__name__


def equal(left: Any, right: Any) -> bool:
    """JSON equality: true is not 1, and numbers compare by value."""
    if _kind(left) != _kind(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(left: Any, right: Any) -> bool:
        kind = _kind(left)
        return kind in ("number", "str") and kind == _kind(right) and compare(left, right)

    return test


def _contained(left: Any, right: Any) -> bool:
    if isinstance(right, str):
        return isinstance(left, str) and left in right
    if isinstance(right, dict):
        return isinstance(left, str) and left in right
    return isinstance(right, list) and any(equal(left, item) for item in right)


_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": equal,
    "!=": lambda left, right: not equal(left, right),
    "<": _ordered(lambda left, right: left < right),
    "<=": _ordered(lambda left, right: left <= right),
    ">": _ordered(lambda left, right: left > right),
    ">=": _ordered(lambda left, right: left >= right),
    "in": _contained,
}
