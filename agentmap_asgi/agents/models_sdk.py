"""Requests to models over Pydantic AI's direct API. Imported at the first model node: it takes a second or more."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from httpx2 import AsyncClient, Request, Response, Timeout, create_ssl_context
from pydantic_ai import exceptions
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from ..errors import ModelFailed, ModelUnavailable, NodeFailure
from ..providers import Provider
from .models_talk import Question, Reply, ToolUse

ANSWER: Final = "answer"
"""The name of the tool, or of the schema, by which a model gives a structured answer."""
NO_KEY: Final = "none"
"""What a server is sent that needs no key."""
UNKNOWN: Final = 400

_PASSING: Final = (
    exceptions.ModelRateLimitError,
    exceptions.ModelUnavailableError,
    exceptions.ModelServerError,
    exceptions.ModelConnectionError,
    exceptions.ModelRequestTimeout,
    exceptions.UnexpectedModelBehavior,
)
"""What may be over the next time."""


_ANSWERS: Final[ContextVar[list[Response] | None]] = ContextVar("answers", default=None)
"""The answers of a request that is being made."""


class Client(AsyncClient):
    """Notes its answers, so that they can be closed when a request is given up: the libraries leave some of them open
    until the garbage is collected.
    """

    async def send(self, request: Request, **how: Any) -> Response:
        answer = await super().send(request, **how)
        answers = _ANSWERS.get()
        if answers is not None:
            answers.append(answer)
        return answer


def certificates(provider: Provider) -> ssl.SSLContext:
    """What a connection to the provider trusts; without TLS nothing has to be read. Not for the event loop."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if provider.base_url.startswith("http:") else create_ssl_context()


def model_of(provider: Provider, name: str, key: str | None, trusted: ssl.SSLContext) -> tuple[Model, Any]:
    """(a model, what closes its connections). Imports the provider's package, so not for the event loop."""
    url = provider.base_url or None
    # A redirect would take the key to another host.
    client = Client(timeout=Timeout(provider.timeout), verify=trusted, follow_redirects=False)
    if provider.kind == "openai":
        from openai import AsyncOpenAI
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        openai = AsyncOpenAI(
            api_key=key or NO_KEY, base_url=url or "https://api.openai.com/v1", max_retries=0, http_client=client
        )
        return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=openai)), client.aclose
    if provider.kind == "anthropic":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        anthropic = AsyncAnthropic(
            api_key=key or NO_KEY, base_url=url or "https://api.anthropic.com", max_retries=0, http_client=client
        )
        return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=anthropic)), client.aclose
    from google.genai import Client as GoogleClient
    from google.genai.types import HttpOptions
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    options = HttpOptions(
        base_url=url or "https://generativelanguage.googleapis.com",
        timeout=int(provider.timeout * 1000),
        httpx_async_client=client,
        async_client_args={"verify": trusted, "ssl": trusted},  # else it reads certificates twice more
    )
    google = GoogleClient(vertexai=False, api_key=key or NO_KEY, http_options=options)
    return GoogleModel(name, provider=GoogleProvider(client=google)), client.aclose


class Conversation:
    """What has been said so far, as any of the providers can be told it."""

    def __init__(self, question: Question) -> None:
        self._said: list[ModelMessage] = []
        self._question = question
        for role, text in question.history:
            part = [TextPart(text)]
            self._said.append(ModelResponse(parts=part) if role == "assistant" else _from_user(text))
        self._said.append(_from_user(question.user))

    def answered(self, reply: Reply) -> None:
        self._said.append(reply.raw)

    def used(self, results: list[tuple[ToolUse, str]]) -> None:
        """What the tools gave that the model has asked for."""
        parts = [ToolReturnPart(tool_name=use.name, content=text, tool_call_id=use.id) for use, text in results]
        self._said.append(ModelRequest(parts=parts))

    def objected(self, reply: Reply, problem: str) -> None:
        """The answer is not what was asked for."""
        self.answered(reply)
        calls = [part for part in reply.raw.parts if isinstance(part, ToolCallPart)]
        if calls:
            self.used([(ToolUse(part.tool_call_id, part.tool_name, None), problem) for part in calls])
        else:
            self._said.append(_from_user(problem))

    def messages(self, system: str) -> list[ModelMessage]:
        if not system:
            return self._said
        last = self._said[-1]
        assert isinstance(last, ModelRequest)  # noqa: S101  # nobody answers himself
        return [*self._said[:-1], ModelRequest(parts=last.parts, instructions=system)]


def _from_user(text: str) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(text)])


class Shape(NamedTuple):
    """A response schema as a provider is told it."""

    system: str
    parameters: ModelRequestParameters


def shape_of(question: Question, provider: Provider) -> Shape:
    tools = [
        ToolDefinition(name=tool.name, description=tool.description or None, parameters_json_schema=dict(tool.schema))
        for tool in question.tools
    ]
    schema = question.schema
    if schema is None:
        return Shape(question.system, ModelRequestParameters(function_tools=tools))
    if provider.structured == "native":
        output = OutputObjectDefinition(json_schema=dict(schema), name=ANSWER)
        return Shape(
            question.system, ModelRequestParameters(function_tools=tools, output_mode="native", output_object=output)
        )
    if provider.structured == "tool":
        answer = ToolDefinition(
            name=ANSWER, description="Give the answer.", parameters_json_schema=dict(schema), kind="output"
        )
        parameters = ModelRequestParameters(
            function_tools=tools, output_mode="tool", output_tools=[answer], allow_text_output=False
        )
        return Shape(question.system, parameters)
    told = f"Answer with JSON alone, without any other text, that fits this JSON Schema:\n{json.dumps(schema)}"
    system = f"{question.system}\n\n{told}" if question.system else told
    return Shape(system, ModelRequestParameters(function_tools=tools))


async def asked(
    model: Model,
    provider: Provider,
    question: Question,
    conversation: Conversation,
    on_text: Callable[[str], None] | None,
) -> Reply:
    """One request. Raises ModelUnavailable or ModelFailed, without a word of what was sent."""
    shape = shape_of(question, provider)
    settings: ModelSettings = {"timeout": provider.timeout}
    if question.temperature is not None:
        settings["temperature"] = question.temperature
    if question.max_tokens is not None:
        settings["max_tokens"] = question.max_tokens
    if question.must_use_tool:
        settings["tool_choice"] = "required"
    messages = conversation.messages(shape.system)
    answers: list[Response] = []
    noting = _ANSWERS.set(answers)
    try:
        if on_text is None:
            response = await model_request(
                model, messages, model_settings=settings, model_request_parameters=shape.parameters
            )
        else:
            async with model_request_stream(
                model, messages, model_settings=settings, model_request_parameters=shape.parameters
            ) as stream:
                async for event in stream:
                    if text := _text_of(event):
                        on_text(text)
                response = stream.get()
    except Exception as exc:
        failure = _failure(exc, provider)
        if failure is None:
            raise
        raise failure from exc
    finally:
        _ANSWERS.reset(noting)
        for answer in answers:
            with suppress(Exception):  # it is broken already
                await answer.aclose()
    return _reply(response, provider)


def _text_of(event: object) -> str:
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        return event.part.content
    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        return event.delta.content_delta
    return ""


def _reply(response: ModelResponse, provider: Provider) -> Reply:
    if response.finish_reason == "content_filter":
        raise ModelFailed(f"The provider {provider.name!r} refused to answer: its content filter")
    if response.finish_reason is None:
        raise ModelUnavailable(f"The provider {provider.name!r} broke off in the middle of its answer")
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    calls = []
    for part in response.parts:
        if isinstance(part, ToolCallPart):
            if part.tool_name == ANSWER:
                text = part.args if isinstance(part.args, str) else json.dumps(part.args)
            else:
                calls.append(ToolUse(part.tool_call_id, part.tool_name, part.args))
    used = {"input_tokens": response.usage.input_tokens, "output_tokens": response.usage.output_tokens}
    return Reply(text, tuple(calls), used, response.finish_reason == "length", response)


def _failure(exc: Exception, provider: Provider) -> NodeFailure | None:
    """What an exception of the library means; None for what is a mistake in this package.

    The texts of the library may hold requests and keys, so that only what the provider said about a request that it
    refused is told, and not when it is about the key.
    """
    status = getattr(exc, "status_code", None)
    said = f" (HTTP {status})" if status is not None else ""
    whose = f"The provider {provider.name!r}"
    if isinstance(exc, exceptions.ModelRateLimitError):
        return ModelUnavailable(f"{whose} limits the rate of requests{said}", retry_after=exc.retry_after)
    if isinstance(exc, exceptions.ModelTimeoutError | exceptions.ModelRequestTimeout):
        return ModelUnavailable(f"{whose} did not answer within {provider.timeout:g} s")
    if isinstance(exc, exceptions.ModelConnectionError):
        return ModelUnavailable(f"The connection to the provider {provider.name!r} failed or broke off")
    if isinstance(exc, exceptions.UnexpectedModelBehavior):
        return ModelUnavailable(f"{whose} answered something that is not what its protocol says")
    if isinstance(exc, _PASSING):
        return ModelUnavailable(f"{whose} is in trouble{said}", retry_after=getattr(exc, "retry_after", None))
    if isinstance(exc, exceptions.ModelAuthenticationError):
        return ModelFailed(f"{whose} does not accept the API key{said}")
    if isinstance(exc, exceptions.ModelQuotaExceededError):
        return ModelFailed(f"{whose} says that the account's quota is used up{said}")
    if isinstance(exc, exceptions.ModelRequestRejectedError):
        return ModelFailed(f"{whose} refused the request{said}{_told(exc.body)}")
    if isinstance(exc, exceptions.ModelAPIError):
        if status is not None and UNKNOWN <= status < 500:
            return ModelFailed(f"{whose} refused the request{said}{_told(exc.body)}")
        return ModelUnavailable(f"{whose} answered something that is not what its protocol says")
    if isinstance(exc, exceptions.UserError):
        return ModelFailed(f"{whose} cannot be asked this: {str(exc)[:200]}")
    return None


def _told(body: object) -> str:
    """What a provider says about a request that it refuses."""
    found: Any = body
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]
    text = found.get("message") if isinstance(found, dict) else None
    return f": {' '.join(text.split())[:300]}" if isinstance(text, str) and text else ""
