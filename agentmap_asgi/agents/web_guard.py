"""Which URLs and addresses the `http` agent may use. Pure: nothing is resolved or opened here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from ..errors import ConfigError, NotAllowed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PORTS: Final = {"https": 443, "http": 80}
MOST_URL: Final = 8_192
CLOSED: Final[tuple[Network, ...]] = tuple(
    map(
        ip_network,
        (
            # This network, private ones, shared, loopback, link-local (cloud metadata too), documentation, benchmarks,
            # multicast, reserved; then a public address at which one cloud answers its own machines.
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
            *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
            # The same for IPv6, and the ranges that stand for IPv4 addresses: compatible, NAT64, Teredo, 6to4.
            *("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16"),
            *("3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
        ),
    )
)
"""Addresses that are refused unless the settings open them."""
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_PATH_SAFE: Final = "/%:@!$&'()*+,;=-._~"


class Place(NamedTuple):
    """A URL that was taken apart and is understood in one way only."""

    scheme: str
    host: str
    """A name in lower case, or an address without brackets."""
    port: int
    target: str
    """Path and query, percent-encoded."""
    hidden: bool = False
    """It comes from a secret, so messages say no more than the host."""

    @property
    def address(self) -> Address | None:
        """The address, when the host is one."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def netloc(self) -> str:
        """What the header Host says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """For messages: without the query, which may hold secrets."""
        path = "/***" if self.hidden else self.target.partition("?")[0][:100]
        return f"{self.scheme}://{self.netloc}{path}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port


def place_of(url: str, *, hidden: bool = False) -> Place:
    """Take a URL apart. Raises NotAllowed for whatever two programs might read in two ways."""
    try:
        return _taken_apart(url.strip())._replace(hidden=hidden)
    except NotAllowed:
        if hidden:
            raise NotAllowed("A URL that a secret holds is none") from None
        raise


def _taken_apart(text: str) -> Place:
    if len(text) > MOST_URL:
        raise NotAllowed(f"A URL has {len(text)} characters; {MOST_URL} are allowed")
    if not text.isprintable() or any(sign in text for sign in ' \\<>"{}|^`'):
        raise NotAllowed(f"{_shown(text)} is no URL: it holds a sign that must be percent-encoded")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise NotAllowed(f"{_shown(text)} is no URL: {exc}") from None
    if parts.scheme not in PORTS:
        raise NotAllowed(f"{_shown(text)} is no http:// or https:// URL")
    if "@" in parts.netloc:
        raise NotAllowed("A URL holds a user or password; give them as bearer, basic or headers")
    if port == 0 or parts.netloc.endswith(":"):
        raise NotAllowed(f"{_shown(text)} has no usable port")
    host = _host(parts.netloc, parts.hostname or "", text)
    path = quote(parts.path or "/", safe=_PATH_SAFE)
    query = f"?{quote(parts.query, safe=_PATH_SAFE + '?')}" if parts.query else ""
    return Place(parts.scheme, host, port or PORTS[parts.scheme], path + query)


def _host(netloc: str, host: str, text: str) -> str:
    if netloc.startswith("["):
        try:
            return str(IPv6Address(host))  # a zone (%eth0) is none that a URL may choose
        except ValueError:
            raise NotAllowed(f"{_shown(text)} has no usable address") from None
    if "%" in host or ":" in host:
        raise NotAllowed(f"{_shown(text)} has no usable host")
    try:
        name = host.encode("idna").decode("ascii").lower() if not host.isascii() else host.lower()
    except UnicodeError:
        raise NotAllowed(f"{_shown(text)} has no usable host") from None
    name = name.removesuffix(".")
    labels = name.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        # 127.1, 0x7f.0.0.1, 017700000001 and 2130706433 are addresses for some programs: only a.b.c.d is one here.
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise NotAllowed(f"{_shown(text)} has an address that is not written as four decimal numbers") from None
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise NotAllowed(f"{_shown(text)} has no usable host")
    return name


def following(place: Place, location: str) -> Place:
    """Where a redirect leads. Raises NotAllowed."""
    base = f"{place.scheme}://{place.netloc}{place.target}"
    try:
        found = place_of(urljoin(base, location), hidden=place.hidden)
    except ValueError:
        raise NotAllowed(f"{place.shown} redirects to what is no URL") from None
    if place.scheme == "https" and found.scheme != "https":
        raise NotAllowed(f"{place.shown} redirects from https to http")
    return found


class _Entry(NamedTuple):
    scheme: str
    host: str
    port: int


class Rules:
    """What the settings allow."""

    def __init__(self, allowed: Sequence[str], opened: Iterable[str] = ()) -> None:
        """`allowed` are hosts (`[scheme://]host[:port]`, https when no scheme is given; `*.example.com` are those below
        a name, `*` all), `opened` networks of CLOSED that may be used. Raises ConfigError.
        """
        self._entries = [_entry(one) for one in allowed]
        try:
            self._opened = [ip_network(one.strip()) for one in opened]
        except ValueError as exc:
            raise ConfigError(f"http_private takes addresses and networks like 10.1.0.0/16: {exc}") from None

    def check(self, place: Place) -> None:
        """Raises NotAllowed for a host that is not on the list."""
        for entry in self._entries:
            same = (entry.scheme, entry.port) == (place.scheme, place.port)
            if same and (entry.host in ("*", place.host) or _below(place.host, entry.host)):
                return
        raise NotAllowed(f"{place.shown} is on no host that http_allow names")

    def check_addresses(self, place: Place, found: Sequence[str]) -> list[str]:
        """The addresses of a host, as they are connected to. Raises NotAllowed if only one of them is closed: a name
        that answers with both is not to be trusted.
        """
        addresses = []
        for text in dict.fromkeys(found):
            try:
                address = ip_address(text)
            except ValueError:  # with a zone: an address of this link
                raise NotAllowed(f"{place.shown} is at {text}, an address that is not open to workflows") from None
            plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
            if not self._is_open(plain):
                raise NotAllowed(
                    f"{place.shown} is at {plain}, an address that is not open to workflows (http_private opens it)"
                )
            addresses.append(str(plain))
        if not addresses:
            raise NotAllowed(f"{place.shown} has no address")
        return addresses

    def _is_open(self, address: Address) -> bool:
        if any(address.version == network.version and address in network for network in self._opened):
            return True
        closed = any(address.version == network.version and address in network for network in CLOSED)
        return not closed and address.is_global and not address.is_multicast


def _below(host: str, entry: str) -> bool:
    return entry.startswith("*.") and host.endswith(entry[1:]) and len(host) > len(entry) - 1


def _entry(text: str) -> _Entry:
    scheme, found, rest = text.strip().lower().rpartition("://")
    wild = rest.startswith("*.")
    try:
        if rest.partition(":")[0] == "*":
            place = place_of(f"{scheme or 'https'}://any{rest[1:]}")._replace(host="*")
        else:
            place = place_of(f"{scheme or 'https'}://{rest[2:] if wild else rest}")
    except NotAllowed:
        place = None
    if place is None or place.target != "/" or (found and not scheme):
        raise ConfigError(f"http_allow has the entry {text!r}; write a host like api.example.com, *.example.com:8443")
    return _Entry(place.scheme, f"*.{place.host}" if wild else place.host, place.port)


def _shown(text: str) -> str:
    head = text.partition("?")[0]
    return repr(head if len(head) <= 100 else head[:97] + "...")
