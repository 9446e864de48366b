"""How three providers of models are spoken to: what requests say, and how answers are written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple


class Answer(NamedTuple):
    """What a model has to say."""

    text: str
    calls: tuple[tuple[str, Mapping[str, Any] | str], ...] = ()
    reason: str = "stop"
    """`stop` or `length`."""
    model: str = ""
    asked: list[str] = []  # noqa: RUF012  # never changed
    """The words of the request; a word counts as a token."""

    @property
    def used(self) -> tuple[int, int]:
        """Tokens in, tokens out."""
        return len(self.asked), len(self.text.split()) + sum(
            len(_text(arguments).split()) for _, arguments in self.calls
        )


def _text(arguments: Mapping[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _object(arguments: Mapping[str, Any] | str) -> Any:
    return {"INVALID_JSON": arguments} if isinstance(arguments, str) else arguments


class Protocol:
    """One provider's. Subclasses say how requests and answers look."""

    prefix = ""
    """What follows the address of the server in its base URL."""

    def serves(self, path: str) -> bool:
        raise NotImplementedError

    def read(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """model, system, messages, tools, stream, body."""
        raise NotImplementedError

    def whole(self, answer: Answer) -> dict[str, Any]:
        raise NotImplementedError

    def pieces(self, answer: Answer, texts: list[str], complete: bool) -> Iterator[bytes]:
        """The events of a stream; without its end when it is not `complete`."""
        raise NotImplementedError

    def error(self, status: int, message: str) -> dict[str, Any]:
        raise NotImplementedError


def _event(data: Any, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _joined(content: Any) -> str:
    """The text of a message, which may have parts."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", part.get("content", ""))) for part in content or ())


class OpenAI(Protocol):
    """Chat completions, which many servers speak."""

    prefix = "/v1"

    def serves(self, path: str) -> bool:
        return path.endswith("/chat/completions")

    def read(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        said = [(one["role"], _joined(one.get("content"))) for one in body["messages"]]
        return {
            "model": body["model"],
            "system": "\n".join(text for role, text in said if role in ("system", "developer")),
            "messages": [(role, text) for role, text in said if role not in ("system", "developer")],
            "tools": [tool["function"]["name"] for tool in body.get("tools") or ()],
            "stream": bool(body.get("stream")),
            "body": body,
        }

    def _head(self, answer: Answer, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000, "model": answer.model}

    def _usage(self, answer: Answer) -> dict[str, int]:
        took, gave = answer.used
        return {"prompt_tokens": took, "completion_tokens": gave, "total_tokens": took + gave}

    def _calls(self, answer: Answer) -> list[dict[str, Any]]:
        return [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": _text(arguments)}}
            for n, (name, arguments) in enumerate(answer.calls)
        ]

    def whole(self, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        if answer.calls:
            message["tool_calls"] = self._calls(answer)
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if answer.calls else answer.reason}
        return {**self._head(answer, "chat.completion"), "choices": [choice], "usage": self._usage(answer)}

    def pieces(self, answer: Answer, texts: list[str], complete: bool) -> Iterator[bytes]:
        head = self._head(answer, "chat.completion.chunk")

        def delta(reason: str | None = None, **found: Any) -> bytes:
            return _event({**head, "choices": [{"index": 0, "delta": found, "finish_reason": reason}]})

        yield delta(role="assistant", content="")
        for text in texts:
            yield delta(content=text)
        for number, call in enumerate(self._calls(answer)):
            yield delta(tool_calls=[{"index": number, **call}])
        if complete:
            yield delta("tool_calls" if answer.calls else answer.reason)
            yield _event({**head, "choices": [], "usage": self._usage(answer)})
            yield b"data: [DONE]\n\n"

    def error(self, status: int, message: str) -> dict[str, Any]:
        code = {429: "rate_limit_exceeded", 401: "invalid_api_key"}.get(status)
        return {"error": {"message": message, "type": "error", "param": None, "code": code}}


class Anthropic(Protocol):
    """Messages."""

    _reasons: Final = {"stop": "end_turn", "length": "max_tokens"}

    def serves(self, path: str) -> bool:
        return path.endswith("/messages")

    def read(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "model": body["model"],
            "system": _joined(body.get("system", "")),
            "messages": [(one["role"], _joined(one["content"])) for one in body["messages"]],
            "tools": [tool["name"] for tool in body.get("tools") or ()],
            "stream": bool(body.get("stream")),
            "body": body,
        }

    def _reason(self, answer: Answer) -> str:
        return "tool_use" if answer.calls else self._reasons[answer.reason]

    def _message(self, answer: Answer, content: list[Any], reason: str | None, gave: int) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {"input_tokens": answer.used[0], "output_tokens": gave},
        }

    def _calls(self, answer: Answer) -> list[dict[str, Any]]:
        return [
            {"type": "tool_use", "id": f"toolu_{n}", "name": name, "input": _object(arguments)}
            for n, (name, arguments) in enumerate(answer.calls)
        ]

    def whole(self, answer: Answer) -> dict[str, Any]:
        content: list[Any] = [{"type": "text", "text": answer.text}] if answer.text else []
        return self._message(answer, content + self._calls(answer), self._reason(answer), answer.used[1])

    def pieces(self, answer: Answer, texts: list[str], complete: bool) -> Iterator[bytes]:
        def event(name: str, **found: Any) -> bytes:
            return _event({"type": name, **found}, name)

        yield event("message_start", message=self._message(answer, [], None, 1))
        number = 0
        if answer.text:
            yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            for text in texts:
                yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
            if complete:
                yield event("content_block_stop", index=0)
            number = 1
        for (_, arguments), call in zip(answer.calls, self._calls(answer), strict=True):
            yield event("content_block_start", index=number, content_block={**call, "input": {}})
            delta = {"type": "input_json_delta", "partial_json": _text(arguments)}
            yield event("content_block_delta", index=number, delta=delta)
            yield event("content_block_stop", index=number)
            number += 1
        if complete:
            end = {"stop_reason": self._reason(answer), "stop_sequence": None}
            yield event("message_delta", delta=end, usage={"output_tokens": answer.used[1]})
            yield event("message_stop")

    def error(self, status: int, message: str) -> dict[str, Any]:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}
        return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}


class Google(Protocol):
    """generateContent."""

    _reasons: Final = {"stop": "STOP", "length": "MAX_TOKENS"}

    def serves(self, path: str) -> bool:
        return path.endswith((":generateContent", ":streamGenerateContent"))

    def read(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        roles = {"model": "assistant"}
        tools = [one for tool in body.get("tools") or () for one in tool.get("functionDeclarations") or ()]
        return {
            "model": path.rpartition("/")[2].partition(":")[0],
            "system": _joined((body.get("systemInstruction") or {}).get("parts")),
            "messages": [
                (roles.get(one.get("role", "user"), "user"), _joined(one.get("parts"))) for one in body["contents"]
            ],
            "tools": [tool["name"] for tool in tools],
            "stream": path.endswith(":streamGenerateContent"),
            "body": body,
        }

    def _chunk(self, answer: Answer, parts: list[Any], reason: str | None) -> dict[str, Any]:
        took, gave = answer.used
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
        return {
            "candidates": [candidate if reason is None else {**candidate, "finishReason": reason}],
            "usageMetadata": {"promptTokenCount": took, "candidatesTokenCount": gave, "totalTokenCount": took + gave},
            "modelVersion": answer.model,
            "responseId": "response-1",
        }

    def _calls(self, answer: Answer) -> list[dict[str, Any]]:
        return [{"functionCall": {"name": name, "args": _object(arguments)}} for name, arguments in answer.calls]

    def whole(self, answer: Answer) -> dict[str, Any]:
        parts: list[Any] = [{"text": answer.text}] if answer.text else []
        return self._chunk(answer, parts + self._calls(answer), self._reasons[answer.reason])

    def pieces(self, answer: Answer, texts: list[str], complete: bool) -> Iterator[bytes]:
        for text in texts:
            yield _event(self._chunk(answer, [{"text": text}], None))
        if answer.calls:
            yield _event(self._chunk(answer, self._calls(answer), None))
        if complete:
            yield _event(self._chunk(answer, [{"text": ""}], self._reasons[answer.reason]))

    def error(self, status: int, message: str) -> dict[str, Any]:
        names = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        names |= {503: "UNAVAILABLE"}
        name = names.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
        return {"error": {"code": status, "message": message, "status": name}}


PROTOCOLS: Final[dict[str, Protocol]] = {"openai": OpenAI(), "anthropic": Anthropic(), "google": Google()}
