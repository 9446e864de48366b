"""`http`: requests to a real server, and everything that must not be requested."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import zlib
from pathlib import Path
from typing import Any

import pytest
import trustme
from answering_web import Answer, Server, answer, served
from flows import node, run, service, serving

from agentmap_asgi.agents.web_call import Web
from agentmap_asgi.agents.web_guard import Rules, following, place_of
from agentmap_asgi.errors import ConfigError, NotAllowed, RemoteFailed

OK = answer(body=b'{"ok": true}')


def allowing(server: Server, **more: Any) -> dict[str, Any]:
    return {"http_allow": [server.url], "http_private": ["127.0.0.0/8"], **more}


async def called(
    tmp_path: Path, server: Server, context: dict[str, Any], state: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The document of one request."""
    context = {"url": server.url, **context}
    rows = [node("A", "http", inputs="|".join(state or {}), output="out", context=context)]
    config = allowing(server, **more.pop("config", {}))
    return await run(tmp_path, rows, state, config=config, **more)


@pytest.mark.anyio
async def test_a_request_is_what_the_row_says(tmp_path: Path) -> None:
    """Method, path, query, headers and body, with fields filled in; secrets by name, masked when they come back."""

    def echo(target: str, headers: dict[str, str]) -> bytes:
        return answer(body=json.dumps({"got": headers["authorization"]}).encode(), X_Seen="top-secret-key")

    async with served(echo) as server:
        context = {
            "url": f"{server.url}/v1/customers/{{customer.id}}",
            "path": "orders/{name}",
            "method": "post",
            "query": {"q": "{name}", "tag": ["a b", "c&d"], "none": None, "key": "secret:KEY"},
            "headers": {"X-Customer": "{customer.id}", "X-Key": "secret:KEY"},
            "body": {"order": "{order}", "text": "for {name}", "n": 1},
            "bearer": "secret:TOKEN",
        }
        state = {"customer": {"id": 7}, "name": "a/../b?x={order}&é", "order": {"lines": [1, 2]}}
        document = await called(
            tmp_path, server, context, state, secrets={"KEY": "top-secret-key", "TOKEN": "t0k3n-value"}
        )
    assert document["success"], document["error"]
    (asked,) = server.asked
    name = "a%2F..%2Fb%3Fx%3D%7Border%7D%26%C3%A9"
    assert (asked.method, asked.target) == (
        "POST",
        f"/v1/customers/7/orders/{name}?q={name}&tag=a%20b&tag=c%26d&key=top-secret-key",
    )
    assert json.loads(asked.body) == {"order": {"lines": [1, 2]}, "text": f"for {state['name']}", "n": 1}
    assert (asked.headers["x-customer"], asked.headers["x-key"]) == ("7", "top-secret-key")
    assert asked.headers["authorization"] == "Bearer t0k3n-value"
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["idempotency-key"] == f"{document['execution_id']}/A#1"
    out = document["result"]["out"]
    assert (out["status"], out["body"], out["headers"]["x-seen"]) == (200, {"got": "Bearer ***"}, "***")


BODIES: dict[str, tuple[dict[str, Any], dict[str, Any], bytes, str]] = {
    "a text": ({"body": "hello {name}"}, {"name": "é"}, "hello é".encode(), "text/plain; charset=utf-8"),
    "a field": ({"body": "{order}"}, {"order": [1]}, b"[1]", "application/json"),
    "a form": (
        {"form": {"a": "{name}", "b": [1, 2]}},
        {"name": "x y"},
        b"a=x+y&b=1&b=2",
        "application/x-www-form-urlencoded",
    ),
    "a type of its own": ({"body": "<a/>", "headers": {"content-type": "text/xml"}}, {}, b"<a/>", "text/xml"),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("context", "state", "body", "kind"), BODIES.values(), ids=BODIES)
async def test_bodies(context: dict[str, Any], state: dict[str, Any], body: bytes, kind: str, tmp_path: Path) -> None:
    """JSON, texts and forms, with the type that they have."""
    async with served(OK) as server:
        document = await called(tmp_path, server, {"method": "PUT", **context}, state)
    assert document["success"], document["error"]
    assert (server.asked[0].body, server.asked[0].headers["content-type"]) == (body, kind)
    assert "idempotency-key" not in server.asked[0].headers


ANSWERS: dict[str, tuple[Answer, dict[str, Any], Any]] = {
    "JSON": (OK, {}, {"ok": True}),
    "JSON of a kind": (answer(body=b"[1]", Content_Type="application/problem+json; charset=utf-8"), {}, [1]),
    "a text": (answer(body="é".encode("latin-1"), Content_Type="text/plain; charset=latin-1"), {}, "é"),
    "JSON as text": (OK, {"answer": "text"}, '{"ok": true}'),
    "bytes": (answer(body=b"\xff\x00", Content_Type="image/png"), {"answer": "base64"}, "/wA="),
    "nothing": (answer(204), {}, None),
    "packed": (answer(body=gzip.compress(b"[2]"), Content_Encoding="gzip"), {}, [2]),
    "deflated": (answer(body=zlib.compress(b"[3]"), Content_Encoding="deflate"), {}, [3]),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", {}, "abc"),
    "a redirect that is not followed": (answer(302, Location="/b"), {}, None),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("given", "context", "body"), ANSWERS.values(), ids=ANSWERS)
async def test_answers(given: Answer, context: dict[str, Any], body: Any, tmp_path: Path) -> None:
    """Read by their type."""
    async with served(given) as server:
        document = await called(tmp_path, server, {"result": "body", **context})
    assert document["success"], document["error"]
    assert document["result"].get("out") == body


BOMB = gzip.compress(b"0" * 10_000_000)
FAILURES: dict[str, tuple[Answer, dict[str, Any], str, str]] = {
    "a status": (answer(500, b"trace"), {}, "remote_failed", "answered 500"),
    "a status from 400 on": (answer(404), {}, "remote_failed", "/ answered 404"),
    "no JSON": (answer(body=b"<html>"), {}, "data_unusable", "no JSON"),
    "half an answer": (answer(body=b"1", Content_Length="9"), {}, "remote_failed", "broke off"),
    "no answer": (b"", {}, "remote_failed", "did not answer"),
    "no HTTP": (b"SSH-2.0-x\r\n\r\n", {}, "remote_failed", "did not answer"),
    "too much": (answer(body=b"x" * 2001, Content_Type="text/plain"), {}, "data_unusable", "http_max_bytes"),
    "too much, unpacked": (answer(body=BOMB, Content_Encoding="gzip"), {}, "data_unusable", "http_max_bytes"),
    "badly packed": (answer(body=b"abc", Content_Encoding="gzip"), {}, "data_unusable", "not gzip"),
    "packed in another way": (answer(body=b"abc", Content_Encoding="br"), {}, "data_unusable", "not asked for"),
    "bytes": (answer(body=b"\xff", Content_Type="image/png"), {}, "data_unusable", "base64"),
    "a slow one": (None, {}, "timeout", "longer than 0.3 s"),
    "endless headers": (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000, {}, "remote_failed", "did not answer"),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("given", "context", "code", "words"), FAILURES.values(), ids=FAILURES)
async def test_failures(given: Answer, context: dict[str, Any], code: str, words: str, tmp_path: Path) -> None:
    """Each fails the node with its reason, in bounded time and memory."""
    config = {"http_timeout": 0.3 if code == "timeout" else 20.0, "http_max_bytes": 2000}
    async with served(given) as server:
        document = await called(tmp_path, server, context, config=config)
    assert document["error"]["code"] == code, document["error"]
    assert words in document["error"]["message"]


@pytest.mark.anyio
async def test_a_status_may_be_an_answer(tmp_path: Path) -> None:
    """With `fail_on_status` false the node says no, and goes to Failure_Next."""
    async with served(answer(404, b"[]")) as server:
        context = {"url": server.url, "fail_on_status": False}
        rows = [
            node("A", "http", output="out", ko="B", ok="C", context=context),
            node("B", output="b", prompt="no"),
            node("C"),
        ]
        document = await run(tmp_path, rows, config=allowing(server))
    assert document["success"]
    assert (document["result"]["out"]["status"], document["result"]["b"]) == (404, "no")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answers", "method", "attempts", "success"),
    [
        ((answer(503), answer(429, Retry_After="0"), OK), "GET", 3, True),
        ((b"", OK), "GET", 2, True),
        ((answer(500), OK), "GET", 1, False),
        ((answer(503), OK), "POST", 2, True),
        ((answer(502), OK), "POST", 1, False),
        ((b"", OK), "POST", 1, False),
        ((answer(503),), "GET", 3, False),
    ],
)
async def test_retries(answers: tuple[Answer, ...], method: str, attempts: int, success: bool, tmp_path: Path) -> None:
    """What may help is tried again; what may have been done is not done again."""
    async with served(*answers) as server:
        document = await called(tmp_path, server, {"method": method, "retries": 2})
    assert (document["success"], len(server.asked)) == (success, attempts), document["error"]


@pytest.mark.anyio
async def test_redirects_are_followed_as_far_as_allowed(tmp_path: Path) -> None:
    """A POST becomes a GET where it should; the next request after the last one allowed is not made."""
    hops = [answer(307, Location="/b"), answer(302, Location="c?d=1"), OK]
    async with served(*hops) as server:
        document = await called(tmp_path, server, {"method": "POST", "body": {"a": 1}, "redirects": 2})
        assert document["success"], document["error"]
        assert [(one.method, one.target, one.body) for one in server.asked] == [
            ("POST", "/", b'{"a": 1}'),
            ("POST", "/b", b'{"a": 1}'),
            ("GET", "/c?d=1", b""),
        ]
        server.asked.clear()
        server.answers[:] = [answer(301, Location="/b"), answer(301, Location="/c"), OK]
        document = await called(tmp_path, server, {"redirects": 1})
    assert (document["result"]["out"]["status"], len(server.asked)) == (301, 2)


@pytest.mark.anyio
async def test_another_host_gets_no_credentials(tmp_path: Path) -> None:
    """After a redirect neither Authorization nor a header with a secret is sent on; others are."""
    async with served(OK) as second, served(answer(302, Location=f"http://localhost:{second.port}/x")) as first:
        config = {"http_allow": [first.url, f"http://localhost:{second.port}"], "http_private": ["127.0.0.1", "::1"]}
        headers = {"X-Key": "secret:KEY", "X-Plain": "1", "Cookie": "a=b"}
        context = {"url": first.url, "headers": headers, "bearer": "secret:KEY", "redirects": 1}
        rows = [node("A", "http", output="out", context=context)]
        document = await run(tmp_path, rows, config=config, secrets={"KEY": "top-secret"})
    assert document["success"], document["error"]
    assert {"x-key", "authorization", "cookie"} <= set(first.asked[0].headers)
    assert {"x-key", "authorization", "cookie"}.isdisjoint(second.asked[0].headers)
    assert (second.asked[0].headers["x-plain"], second.asked[0].headers["host"]) == ("1", f"localhost:{second.port}")


INTERNAL = [
    *("http://127.0.0.1/", "http://localhost/", "http://localhost./", "http://LOCALHOST/", "http://2130706433/"),
    *("http://0x7f000001/", "http://0x7f.0.0.1/", "http://017700000001/", "http://0177.0.0.1/", "http://127.1/"),
    *("http://127.0.1/", "http://0/", "http://0.0.0.0/", "http://[::]/", "http://[::1]/", "http://[::ffff:127.0.0.1]/"),
    *(
        "http://[::ffff:7f00:1]/",
        "http://[0:0:0:0:0:ffff:a00:1]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
    ),
    *("http://[64:ff9b:1::a00:1]/", "http://[2002:7f00:1::]/", "http://[2001:0:7f00:1::]/", "http://[fe80::1]/"),
    *(
        "http://[fe80::1%25eth0]/",
        "http://[fc00::1]/",
        "http://[fd00:ec2::254]/",
        "http://[ff02::1]/",
        "http://[100::1]/",
    ),
    *(
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://172.31.255.255/",
        "http://192.168.1.1/",
        "http://169.254.169.254/",
    ),
    *(
        "http://100.64.0.1/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
        "http://192.0.0.192/",
        "http://198.18.0.1/",
    ),
    *(
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://240.0.0.1/",
        "http://203.0.113.7/",
        "http://[2001:db8::1]/",
    ),
    *("http://①②⑦.⓪.⓪.①/", "http://１２７.0.0.1/", "http://127。0。0。1/", "http://127.0.0.1%2f@example.com/"),
    *("http://example.com@127.0.0.1/", "http://user:pw@example.com/", "http://127.0.0.1#@example.com/", "http:///x"),
    *(
        "http://example.com\\@127.0.0.1/",
        "http://127.0.0.1\\.example.com/",
        "http://127.0.0.1\t/",
        "http://exa\nmple.com/",
    ),
    *("http://127.0.0.1%00.example.com/", "http://127.0.0.1%20/", "http://[::1", "http://::1/", "http://[127.0.0.1]/"),
    *(
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/_x",
        "ftp://example.com/",
        "dict://x:11111/",
        "data:text/plain,x",
        "//x/",
    ),
    *("http://example.com:0/", "http://example.com:99999/", "http://example.com:/", "http://example.com:80:80/", ""),
    *("http://1.2.3/", "http://1.2.3.4.5/", "http://256.1.1.1/", "http://0x/", "http://09.1.1.1/", "http://1.1.1.0x1/"),
    *("http://a..b/", "http://-a.com/", "http://.com/", "http://" + "a" * 64 + ".com/", "http://x/" + "a" * 9000),
]


@pytest.mark.anyio
@pytest.mark.parametrize("url", INTERNAL)
async def test_what_no_workflow_may_call(url: str, tmp_path: Path) -> None:
    """Even when every host is allowed: addresses inside, in every way to write them, and URLs read in two ways."""
    config = {"http_allow": ["*", "http://*"], "http_timeout": 5.0}
    rows = [node("A", "http", inputs="url", output="out", context={"url": "{url}"})]
    document = await run(tmp_path, rows, {"url": url}, config=config)
    assert document["error"]["code"] == "not_allowed", document["error"]


async def _public(host: str, port: int) -> list[str]:
    return ["93.184.216.34"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("allowed", "url", "fits"),
    [
        ("api.example.com", "https://api.example.com/x", True),
        ("api.example.com", "https://API.example.com.:443/x", True),
        ("api.example.com", "http://api.example.com/x", False),
        ("api.example.com", "https://api.example.com:8443/x", False),
        ("api.example.com", "https://evil-api.example.com/", False),
        ("api.example.com", "https://api.example.com.evil.test/", False),
        ("*.example.com", "https://a.b.example.com/", True),
        ("*.example.com", "https://example.com/", False),
        ("*.example.com", "https://evilexample.com/", False),
        ("*.example.com:8443", "https://a.example.com:8443/", True),
        ("http://api.example.com", "http://api.example.com/", True),
        ("bücher.example", "https://xn--bcher-kva.example/", True),
        ("*", "https://anything.example/", True),
        ("*:8443", "https://anything.example:8443/", True),
        ("*", "http://anything.example/", False),
    ],
)
async def test_the_list_of_hosts(allowed: str, url: str, fits: bool) -> None:
    """Scheme, host and port; names below a name; https unless another scheme is written."""
    rules = Rules([allowed])
    place = place_of(url)
    if fits:
        rules.check(place)
        assert rules.check_addresses(place, await _public(place.host, place.port))
    else:
        with pytest.raises(NotAllowed, match="http_allow"):
            rules.check(place)


@pytest.mark.parametrize("entry", ["", "ftp://x", "x/y", "u@x", "http://", "*.", "a b", "127.1", "**"])
def test_a_wrong_list_is_refused(entry: str) -> None:
    """As is what is no network."""
    with pytest.raises(ConfigError, match="http_allow"):
        Rules([entry])
    with pytest.raises(ConfigError, match="http_private"):
        Rules(["x.example"], ["localhost"])


def test_a_name_that_is_inside_and_outside_is_refused() -> None:
    """One closed address is enough; those that are opened are fine."""
    place = place_of("https://x.example/")
    for inner in ("10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0"):
        with pytest.raises(NotAllowed):
            Rules(["*"]).check_addresses(place, ["93.184.216.34", inner])
    assert Rules(["*"], ["10.0.0.0/8"]).check_addresses(place, ["::ffff:10.0.0.1"]) == ["10.0.0.1"]
    with pytest.raises(NotAllowed, match="no address"):
        Rules(["*"]).check_addresses(place, [])


def test_a_redirect_never_leaves_tls() -> None:
    """From https to http is refused, and what is no URL."""
    place = place_of("https://x.example/a/b?c")
    assert following(place, "../d").target == "/d"
    assert following(place, "//y.example/e").host == "y.example"
    for location in ("http://x.example/", "file:///etc/passwd", "https://[::1", "https://127.1/"):
        with pytest.raises(NotAllowed):
            following(place, location)


class Calling:
    """A call of the agent as `Web.run` sees it."""

    def __init__(self, **options: Any) -> None:
        self.options = {"method": "GET", "retries": 0, "redirects": 0, "fail_on_status": True, "answer": "auto"}
        self.options |= {"result": "body", **options}
        self.node = type("Node", (), {"options": self.options, "prompt": ""})()
        self.inputs: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        self.idempotency_key = "key"


@pytest.mark.anyio
async def test_a_name_is_resolved_once_and_that_address_is_connected_to() -> None:
    """A second answer of the resolver, for another address, is never asked for; the server sees the name."""
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    async with served(OK, answer(302, Location="/again")) as server:
        url = f"http://api.example.test:{server.port}"
        web = Web(Rules([url], ["127.0.0.1"]), timeout=5, most=1000, resolver=rebinding)
        found = await web.run(Calling(url=url))  # type: ignore[arg-type]
        assert (found.value, asked) == ({"ok": True}, ["api.example.test"])
        assert server.asked[0].headers["host"] == f"api.example.test:{server.port}"
        asked.clear()
        with pytest.raises(NotAllowed, match=r"10\.0\.0\.1"):  # each redirect is resolved and checked anew
            await web.run(Calling(url=url, redirects=1))  # type: ignore[arg-type]
        assert len(asked) == 2


@pytest.mark.anyio
async def test_a_redirect_inside_is_refused(tmp_path: Path) -> None:
    """Whether to an address or to a host that is not on the list."""
    for location, words in (("http://169.254.169.254/", "http_allow"), ("http://other.example/", "http_allow")):
        async with served(answer(302, Location=location)) as server:
            document = await called(tmp_path, server, {"redirects": 3})
        assert (document["error"]["code"], words in document["error"]["message"]) == ("not_allowed", True)


@pytest.mark.anyio
@pytest.mark.blocks
async def test_tls_is_that_of_the_name(tmp_path: Path) -> None:
    """The certificate must be for the name of the URL, though the connection goes to the checked address."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.example.test").configure_cert(tls)

    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with served(OK, tls=tls) as server:
        rules = Rules([f"*:{server.port}"], ["127.0.0.1"])

        def made(authority: str | None) -> Web:
            return Web(rules, timeout=5, most=1000, authority=authority, resolver=here)

        good = f"https://api.example.test:{server.port}/"
        found = await made(str(tmp_path / "ca.pem")).run(Calling(url=good))  # type: ignore[arg-type]
        assert found.value == {"ok": True}
        bad = good.replace("api.", "other.")
        for url, trusted in ((bad, str(tmp_path / "ca.pem")), (good, None)):
            with pytest.raises(RemoteFailed, match=r"(?i)certificate"):
                await made(trusted).run(Calling(url=url))  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_cancelled_execution_closes_its_connection(tmp_path: Path) -> None:
    """The other side sees it at once."""
    async with served(None) as server:
        rows = [node("A", "http", output="out", context={"url": server.url})]
        async with serving(tmp_path, rows, config=allowing(server)) as made:
            task = asyncio.create_task(made.execute_workflow("Flow", {}))
            await asyncio.wait_for(server.arrived.wait(), 10)
            (found,) = await made.list_executions()
            await made.cancel_execution(found["execution_id"])
            assert (await task)["status"] == "cancelled"
            await asyncio.wait_for(server.gone.wait(), 10)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("context", "state"),
    [
        ({"headers": {"X-A": "{v}"}}, {"v": "a\r\nX-Evil: 1"}),
        ({"headers": {"{v}": "1"}}, {"v": "x"}),
        ({"headers": {"Host": "evil.example"}}, {"v": "x"}),
        ({"method": "POST", "headers": {"Content-Length": "0"}}, {"v": "x"}),
    ],
)
async def test_headers_cannot_be_forged(context: dict[str, Any], state: dict[str, Any], tmp_path: Path) -> None:
    """Neither by line breaks in a value nor by names that are not a row's to say."""
    async with served(OK) as server:
        path = tmp_path / "x"
        path.mkdir()
        rows = [node("A", "http", inputs="v", output="out", context={"url": server.url, **context})]
        made = await asyncio.to_thread(service, path, rows, config=allowing(server))
        found = made.get_workflow_definition("Flow")["diagnostics"]
        if not found:
            document = await made.execute_workflow("Flow", state)
            assert document["error"]["code"] in ("not_allowed", "remote_failed"), document["error"]
        assert server.asked == []
        await made.aclose()


@pytest.mark.anyio
async def test_secrets_come_from_the_row_alone(tmp_path: Path) -> None:
    """A value of the state that looks like a reference is sent as it is; a secret URL is not in the error."""
    async with served(answer(500)) as server:
        state = {"v": "secret:KEY"}
        context = {"url": "secret:HOOK", "query": {"v": "{v}"}}
        hook = f"{server.url}/hooks/T0P-S3CRET"
        document = await called(tmp_path, server, context, state, secrets={"KEY": "hidden-value", "HOOK": hook})
    assert server.asked[0].target == "/hooks/T0P-S3CRET?v=secret%3AKEY"
    assert "T0P" not in json.dumps(document)


def diagnostics(tmp_path: Path, row: dict[str, str], **config: Any) -> list[str]:
    made = service(tmp_path, [row], config={"http_allow": ["api.example.com"], **config})
    return [one["code"] for one in made.get_workflow_definition("Flow")["diagnostics"]]


def test_what_can_be_seen_is_said_when_a_file_is_loaded(tmp_path: Path) -> None:
    """Hosts, headers, methods; and that no host is allowed at all."""
    url = "https://api.example.com/x"
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"url": url}, []),
        ({"url": "https://{host}/x"}, []),
        ({"url": "https://other.example.com/x"}, ["AM-A004"]),
        ({"url": "http://127.1/"}, ["AM-A004"]),
        ({}, ["AM-A004"]),
        ({"url": url, "headers": {"Host": "x"}}, ["AM-A004"]),
        ({"url": url, "method": "FETCH"}, ["AM-A004"]),
        ({"url": url, "body": {"a": 1}}, ["AM-A004"]),
        ({"url": url, "retries": 99}, ["AM-A004"]),
        ({"url": url, "header": {}}, ["AM-A008"]),
        ({"url": url, "headers": {"Authorization": "abc"}}, ["AM-V003"]),
    ]
    for context, expected in cases:
        assert diagnostics(tmp_path, node("A", "http", context=context)) == expected, context
    assert diagnostics(tmp_path, node("A", "http", prompt=url)) == []
    assert diagnostics(tmp_path, node("A", "http", prompt=url), http_allow=[]) == ["AM-A009"]
