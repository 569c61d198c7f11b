"""ApiTeacher: an OpenAI-compatible server over HTTP, by the `openai` client.

    teacher = ApiTeacher(config.teacher.api, sampling=config.teacher.sampling, api_key=key)
    reply = await teacher.ask(request)

The client's own retries are off: they would hide what the server says about its limits. Responses
are read as bytes and checked here, since servers and the proxies before them answer with HTML, cut
bodies and errors under status 200 too. The key stands in no message: what a server repeats of it is
masked.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from pydantic import SecretStr

from lorid.config import SamplingConfig
from lorid.errors import ConfigError
from lorid.sections import ApiConfig
from lorid.teacher.base import Reply, TeacherRequest, Usage
from lorid.teacher.failures import Failed, Failure, damaged, of_error_body, of_status, short

if TYPE_CHECKING:
    from openai import AsyncOpenAI

NO_KEY = "none"
KNOWLEDGE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"output": {"type": "array", "items": {"type": "string"}}},
    "required": ["output"],
    "additionalProperties": False,
}
_REFUSALS = {"content_filter", "refusal"}


def read_key(api: ApiConfig) -> SecretStr:
    """The key, from this process's environment.

    Raises:
        ConfigError: the variable is not set.
    """
    if api.api_key_env is None:
        return SecretStr(NO_KEY)
    key = os.environ.get(api.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"no key for the teacher: set the environment variable {api.api_key_env}, name another "
            "(teacher.api.api_key_env), or null for a server that wants none"
        )
    return SecretStr(key)


def connect(api: ApiConfig, key: SecretStr) -> "AsyncOpenAI":
    """The client; nothing is sent yet."""
    from httpx2 import Limits
    from openai import AsyncAzureOpenAI, AsyncOpenAI, DefaultAioHttpClient

    # By default 1,000 connections, of which 100 are kept open.
    limits = Limits(max_connections=api.max_in_flight, max_keepalive_connections=api.max_in_flight)
    settings: dict[str, Any] = {
        # Its default transport looks at every open connection for each request.
        "http_client": DefaultAioHttpClient(timeout=api.timeout_s, limits=limits),
        "api_key": key.get_secret_value(),
        "max_retries": 0,
        "timeout": api.timeout_s,
    }
    if api.api_version is not None:
        # Azure: base_url is the resource's endpoint, and model the deployment's name.
        endpoint = {"azure_endpoint": api.base_url} if api.base_url else {}
        return AsyncAzureOpenAI(api_version=api.api_version, **endpoint, **settings)
    return AsyncOpenAI(base_url=api.base_url, **settings)


def body_of(request: TeacherRequest, *, api: ApiConfig, sampling: SamplingConfig) -> dict[str, Any]:
    """The JSON body of a chat completion; `top_k` is no part of this API."""
    body: dict[str, Any] = {
        "model": api.model,
        "messages": [{"role": "user", "content": request.prompt}],
        "temperature": request.temperature,
        "top_p": sampling.top_p,
        "seed": request.seed,
        api.max_tokens_field: sampling.max_new_tokens,
    }
    if api.response_format == "json_schema":
        schema = {"name": "knowledge", "schema": KNOWLEDGE_SCHEMA, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif api.response_format == "json_object":
        body["response_format"] = {"type": "json_object"}
    for field in api.omit:
        body.pop(field, None)
    return {**body, **api.extra}


def read_completion(content: bytes | str) -> Reply:
    """The reply in the body of a chat completion.

    Raises:
        Failed: it holds none.
    """
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        start = content[:60] if isinstance(content, str) else content[:60].decode(errors="replace")
        raise Failed(damaged(f"the body is no JSON: {start}")) from error
    if isinstance(value, dict) and cast("dict[str, Any]", value).get("error"):
        raise Failed(of_error_body(cast("dict[str, Any]", value)["error"]))
    try:
        choice = value["choices"][0]
        message = choice["message"]
        return Reply(
            text=_text(message.get("content")),
            finish_reason=_finish_reason(choice, message),
            usage=_usage(value.get("usage")),
            model=short(str(value.get("model") or "")),
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Failed(damaged("the body is no chat completion")) from error


class ApiTeacher:
    """See `lorid.teacher.base.Teacher`."""

    def __init__(self, api: ApiConfig, *, sampling: SamplingConfig, key: SecretStr) -> None:
        self.api, self.sampling, self.key = api, sampling, key
        self.client: AsyncOpenAI | None = None

    async def ask(self, request: TeacherRequest) -> Reply:
        """See `Teacher.ask`."""
        if self.client is None:
            self.client = connect(self.api, self.key)
        body = body_of(request, api=self.api, sampling=self.sampling)
        with explained(self.key):
            try:
                # The client's time-out is for each read: a server that drips never meets it.
                async with asyncio.timeout(self.api.timeout_s):
                    return read_completion(await self._post(body))
            except TimeoutError as error:
                reason = f"no answer within {self.api.timeout_s:g} s"
                raise Failed(Failure(kind="passing", reason=reason)) from error

    async def aclose(self) -> None:
        """See `Teacher.aclose`."""
        if self.client is not None:
            await self.client.close()
            self.client = None

    async def _post(self, body: dict[str, Any]) -> bytes:
        assert self.client is not None
        # Below the typed method, whose walk through the body's types costs as much as the sending.
        return await self.client.post("/chat/completions", cast_to=bytes, body=body)


@contextmanager
def explained(key: SecretStr) -> Iterator[None]:
    """Turn what the `openai` client raises in the block into `Failed`, without the key."""
    from openai import APIConnectionError, APIStatusError

    try:
        yield
    except APIStatusError as error:
        response = error.response
        failure = of_status(response.status_code, headers=response.headers, body=response.text)
    except APIConnectionError as error:
        cause = error.__cause__ or error
        reason = short(f"connection: {type(cause).__name__} {cause}")
        failure = Failure(kind="passing", reason=reason)
    else:
        return
    secret = key.get_secret_value()
    if secret != NO_KEY:
        failure = replace(failure, reason=failure.reason.replace(secret, "***"))
    raise Failed(failure)


def _text(content: object) -> str:
    if isinstance(content, str):
        text = content
    elif isinstance(content, list):
        parts = cast("list[Any]", content)
        text = "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
    else:
        text = ""
    # Half of a surrogate pair is no text: no file takes it.
    return text.encode(errors="replace").decode()


def _finish_reason(choice: dict[str, Any], message: dict[str, Any]) -> str:
    reason = short(str(choice.get("finish_reason") or "stop"))
    return "refusal" if message.get("refusal") or reason in _REFUSALS else reason


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    known = cast("dict[str, Any]", usage)
    details = known.get("prompt_tokens_details")
    cached = (
        cast("dict[str, Any]", details).get("cached_tokens") if isinstance(details, dict) else 0
    )
    return Usage(
        input_tokens=_count(known.get("prompt_tokens")),
        output_tokens=_count(known.get("completion_tokens")),
        cached_input_tokens=_count(cached),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**40 else 0
