"""The strict door for request bodies: read within bounds, decoded without surprises.

JSON that two parsers could read differently is refused: duplicate keys, NaN, numbers past a double or 64 bits, lone
surrogates, other encodings. Cheap counts over the bytes decide whether an exact scan is needed; every scan is linear.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import accumulate
from math import isinf
from typing import Any, Final

from starlette.requests import ClientDisconnect

from ..config import AgentMapConfig
from ..execution.values import HEAVIEST, INT_MAX, INT_MIN, MAX_DEPTH
from .exchange import Exchange
from .problems import Refusal

_NUMBERS = re.compile(rb"\d{19}|\d[eE][+-]?\d{3}")
"""Only where this is found can a number be past 64 bits or past a double."""
_DIGITS: Final = bytes.maketrans(b"123456789E", b"000000000e")
_MANY: Final = b"0" * 19
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A string, or what is left of an unclosed one: it always matches, so that the whole scan is linear."""
_BLANK: Final = " \t\r\n"
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]*)', re.IGNORECASE)


def media_type(exchange: Exchange) -> str:
    """The request's content type without parameters, in lower case; empty when there is none."""
    return exchange.header(b"content-type").partition(";")[0].strip().lower()


async def read_json(exchange: Exchange, config: AgentMapConfig) -> Any:
    """The JSON value of the body. Raises Refusal for everything that is not exactly one."""
    if exchange.headers.get(b"content-type") != b"application/json":
        header = exchange.header(b"content-type")
        if media_type(exchange) != "application/json":
            raise _unsupported(("application/json",))
        charset = _CHARSET.search(header)
        if charset is not None and charset[1].lower() not in ("utf-8", "utf8"):
            raise Refusal(400, "invalid_json", "The body must be JSON in UTF-8")
    data = await read(exchange, config.max_body_bytes, config.body_timeout)
    value = parse(data, max_depth=config.max_json_depth, max_values=config.max_json_values)
    exchange.plain = len(data) * HEAVIEST <= config.max_state_bytes and config.max_json_depth <= MAX_DEPTH
    return value


async def read_optional_json(exchange: Exchange, config: AgentMapConfig) -> Any:
    """As `read_json`; an empty object when no body was sent."""
    if b"content-type" in exchange.headers or b"transfer-encoding" in exchange.headers:
        return await read_json(exchange, config)
    if await read(exchange, config.max_body_bytes, config.body_timeout):
        raise _unsupported(("application/json",))
    return {}


async def read_bytes(exchange: Exchange, types: tuple[str, ...], limit: int, timeout: float) -> bytes:
    """The body as it is, when its content type is one of `types`."""
    if media_type(exchange) not in types:
        raise _unsupported(types)
    return await read(exchange, limit, timeout)


def _unsupported(types: tuple[str, ...]) -> Refusal:
    headers = {"Accept": ", ".join(types)}
    return Refusal(415, "unsupported_media_type", f"Send the body as {' or '.join(types)}", headers=headers)


async def read(exchange: Exchange, limit: int, timeout: float) -> bytes:
    """The whole body, at most `limit` bytes and `timeout` seconds."""
    headers = exchange.headers
    if b"content-encoding" in headers and headers[b"content-encoding"].strip().lower() not in (b"", b"identity"):
        detail = "Send the body without content encoding"
        raise Refusal(415, "unsupported_media_type", detail, headers={"Accept-Encoding": "identity"})
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    try:
        return await exchange.calls.deadlines.within(timeout, _collect(exchange, limit))
    except TimeoutError:
        raise Refusal(408, "body_timeout", f"The body was not complete after {timeout:g} seconds") from None
    except ClientDisconnect:
        raise Refusal(400, "body_incomplete", "The connection ended before the body was complete") from None


async def _collect(exchange: Exchange, limit: int) -> bytes:
    if exchange.seen is not None:  # a host's own code had the Request and may have read it
        read_before = bytearray()
        async for chunk in exchange.seen.stream():
            read_before += chunk
            if len(read_before) > limit:
                raise _too_large(limit)
        return bytes(read_before)
    message = await exchange.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    data: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(data) > limit:
            raise _too_large(limit)
        return data
    whole = bytearray(data)
    while True:
        if len(whole) > limit:
            raise _too_large(limit)
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        whole += message.get("body", b"")
        if not message.get("more_body", False):
            if len(whole) > limit:
                raise _too_large(limit)
            return bytes(whole)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "body_too_large", f"The body has more than {limit} bytes", headers={"Connection": "close"})


def parse(data: bytes, *, max_depth: int = 64, max_values: int = 100_000) -> Any:
    """The value of a JSON text. Raises Refusal (`invalid_json`, `json_too_complex`)."""
    openers = data.count(b"[") + data.count(b"{")
    if openers > max_depth or (len(data) > max_values and data.count(b",") + openers >= max_values):
        _check_complexity(data, max_depth, max_values)
    digits = data.translate(_DIGITS)  # two plain searches are cheaper than a regular expression
    decoder = _EXACT if (_MANY in digits or b"0e" in digits) and _NUMBERS.search(data) else _PLAIN
    if _quickly is not None and decoder is _PLAIN and b"\\" not in data:
        try:
            return _quickly(data)
        except ValueError:
            pass  # the decoder says what is wrong
    try:
        text = data.decode()
        value, end = decoder.raw_decode(text, len(text) - len(text.lstrip(_BLANK)))
        if end != len(text) and text[end:].strip(_BLANK):
            raise json.JSONDecodeError("Extra data", text, end)
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise Refusal(400, "invalid_json", "The body must be JSON in UTF-8, without lone surrogates") from None
    except _NotExact as exc:
        raise Refusal(400, "invalid_json", f"The body is not plain JSON: {exc}") from None
    except json.JSONDecodeError as exc:
        raise Refusal(400, "invalid_json", f"The body is not JSON: see character {exc.pos + 1}") from None
    except RecursionError:  # a host that leaves little of the stack
        raise Refusal(400, "json_too_complex", "The body is nested too deeply") from None
    return value


def _check_complexity(data: bytes, max_depth: int, max_values: int) -> None:
    """Count exactly. Every value but the first follows a comma or the opening of its list or object."""
    bare = _STRINGS.sub(b'"', data).translate(None, _BLANK.encode())
    openers = bare.count(b"[") + bare.count(b"{")
    values = 1 + bare.count(b",") + openers - bare.count(b"[]") - bare.count(b"{}")
    if values > max_values:
        raise Refusal(400, "json_too_complex", f"The body has more than {max_values} values")
    if openers > max_depth:
        brackets = bare.translate(None, _NOT_BRACKETS)
        # More closing than opening ones is no JSON at all; the parser will say so.
        if len(brackets) <= 2 * openers and max(accumulate(map(_STEP.__getitem__, brackets))) > max_depth:
            raise Refusal(400, "json_too_complex", f"The body is nested deeper than {max_depth}")


def _quick() -> Callable[[bytes], Any] | None:
    """orjson, when it is there, for texts without a backslash and without long numbers; ValueError for all others.

    It takes the last of two equal keys. But what it has read, written again, has as many quotation marks as the text
    exactly when no key was left out: without a backslash each of them begins or ends a key or a string.
    """
    try:
        import orjson
    except ImportError:
        return None
    loads, dumps = orjson.loads, orjson.dumps

    def read(data: bytes) -> Any:
        value = loads(data)
        if data.count(b'"') != dumps(value).count(b'"'):
            raise ValueError
        return value

    return read


_quickly: Final = _quick()


class _NotExact(Exception):
    """A JSON text that not every parser reads alike; the message says why, without the text."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _NotExact("an object has a key twice")
    return fields


def _refuse_constant(name: str) -> Any:
    raise _NotExact("NaN and Infinity are not numbers of JSON")


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) < 30 else INT_MAX + 1
    if not INT_MIN <= value <= INT_MAX:
        raise _NotExact("an integer is past 64 bits; send it as a string")
    return value


def _number(digits: str) -> float:
    value = float(digits)
    if isinf(value):
        raise _NotExact("a number is too large")
    return value


_PLAIN: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_EXACT: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_number
)
