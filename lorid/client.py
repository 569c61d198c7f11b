"""A client of the endpoint.

    with Client("http://127.0.0.1:8000") as client:
        client.solve("Tom has 12 apples. He gives 5 away. How many are left?")["answer"]

        for name, event in client.solve_stream("2 + 3 = ?"): ...       # as it happens
        for row in client.grade_stream(items): ...                     # as they finish

Usable from many threads. Answers are the JSON of `lorid.api` as dictionaries. Nothing is retried
here; `lorid.batches` grades any number of items through refusals and restarts.
"""

import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx

from lorid.errors import EndpointBusy, ServeError
from lorid.teacher.failures import wait_asked

CONNECT_TIMEOUT_S = 10.0
# Statuses, and types of errors in a stream, that may be over when the request is sent again.
BUSY_STATUS = frozenset({408, 429, 502, 503, 504})
PASSING_TYPES = frozenset({"deadline_exceeded", "unavailable", "draining"})
# What /readyz says that waiting cannot change, and what to do about it where it does not say so.
WILL_NOT_BE_READY = {"idle_adapters": "; train them for longer", "cannot_start": ""}


class Client:
    """Asks one endpoint; `timeout_s` bounds a whole request."""

    def __init__(self, url: str, api_key: str | None = None, *, timeout_s: float = 600.0) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=256),
            # An endpoint is named outright; a proxy of the environment must not come between.
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give its connections back; leaving a `with` block does this."""
        self._http.close()

    def solve(
        self,
        question: str,
        *,
        max_rounds: int | None = None,
        rule: str | None = None,
        seed: int | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Solve one question by mutual feedback.

        Raises:
            EndpointBusy: asking again may help.
            ServeError: the endpoint refuses; the message says why.
        """
        body = {
            "question": question,
            "max_rounds": max_rounds,
            "rule": rule,
            "seed": seed,
            "timeout_s": timeout_s,
        }
        return self._post("/v1/solve", body)

    def solve_stream(
        self,
        question: str,
        *,
        max_rounds: int | None = None,
        rule: str | None = None,
        seed: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """What happens while a question is solved: `attempt`, `round`, and `answer` at the end.

        Raises:
            EndpointBusy, ServeError: as for `solve`; also when the stream ends without an answer.
        """
        body = {
            "question": question,
            "max_rounds": max_rounds,
            "rule": rule,
            "seed": seed,
            "timeout_s": timeout_s,
            "stream": True,
        }
        name = ""
        with self._streamed("/v1/solve", body, accept="text/event-stream") as lines:
            for line in lines:
                key, _, value = line.partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    event = json.loads(value)
                    if name == "error":
                        raise _failure(f"{self.url}/v1/solve", event["error"])
                    yield name, event
        if name != "answer":
            raise EndpointBusy(f"{self.url}/v1/solve: the stream ended without an answer")

    def grade(
        self,
        items: Sequence[Mapping[str, Any]],
        *,
        max_rounds: int | None = None,
        rule: str | None = None,
        seed: int | None = None,
        include_transcripts: bool = False,
        include_feedback: bool = False,
    ) -> dict[str, Any]:
        """Grade items, each with `id`, `question` and `reference` or `submission`.

        With `include_feedback` each result says where the submission departs, and gives a hint.

        Raises:
            EndpointBusy, ServeError: as for `solve`.
        """
        body = {
            "items": [dict(item) for item in items],
            "max_rounds": max_rounds,
            "rule": rule,
            "seed": seed,
            "include_transcripts": include_transcripts,
            # Left out where it is not asked for: older endpoints do not know it.
            "include_feedback": include_feedback or None,
        }
        return self._post("/v1/grade", body)

    def grade_stream(
        self,
        items: Sequence[Mapping[str, Any]],
        *,
        max_rounds: int | None = None,
        rule: str | None = None,
        seed: int | None = None,
        include_transcripts: bool = False,
        include_feedback: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Results as they finish, in any order; leaving early cancels the rest.

        Raises:
            EndpointBusy, ServeError: as for `solve`; also when the stream is cut off.
        """
        body = {
            "items": [dict(item) for item in items],
            "max_rounds": max_rounds,
            "rule": rule,
            "seed": seed,
            "include_transcripts": include_transcripts,
            # Left out where it is not asked for: older endpoints do not know it.
            "include_feedback": include_feedback or None,
        }
        has_ended = False
        with self._streamed("/v1/grade", body, accept="application/x-ndjson") as lines:
            for line in lines:
                row = json.loads(line)
                if "summary" in row:
                    has_ended = True
                else:
                    yield row
        if not has_ended:
            raise EndpointBusy(f"{self.url}/v1/grade: the stream was cut off")

    def complete(self, question: str, *, model: str, seed: int | None = None) -> tuple[str, str]:
        """One model's own text and its finish reason, by the OpenAI-compatible route."""
        messages = [{"role": "user", "content": question}]
        answer = self._post(
            "/v1/chat/completions", {"model": model, "messages": messages, "seed": seed}
        )
        choice = answer["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]

    def wait_until_ready(self, *, timeout_s: float) -> None:
        """Return when `/readyz` says yes.

        Raises:
            ServeError: it does not in time, with the reason that it gave last; or it will not,
                since its engine cannot start or an adapter answers like the base.
        """
        deadline = time.monotonic() + timeout_s
        reason = "no answer"
        while time.monotonic() < deadline:
            try:
                response = self._http.get("/readyz")
                if response.is_success:
                    return
                reason, kind = _error_of(response)
            except httpx.HTTPError as error:
                reason, kind = str(error) or type(error).__name__, ""
            if kind in WILL_NOT_BE_READY:
                raise ServeError(f"{self.url} will not be ready: {reason}{WILL_NOT_BE_READY[kind]}")
            time.sleep(0.3)
        raise ServeError(f"{self.url} is not ready after {timeout_s:.0f} s: {reason}")

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._errors(path):
            response = self._http.post(path, json=_present(body))
        if response.is_error:
            raise self._refusal(path, response)
        return response.json()

    @contextmanager
    def _streamed(
        self, path: str, body: Mapping[str, Any], *, accept: str
    ) -> Generator[Iterator[str], None, None]:
        headers = {"Accept": accept}
        with (
            self._errors(path),
            self._http.stream("POST", path, json=_present(body), headers=headers) as response,
        ):
            if response.is_error:
                response.read()
                raise self._refusal(path, response)
            yield _lines(response)

    @contextmanager
    def _errors(self, path: str) -> Generator[None, None, None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise EndpointBusy(
                f"nothing answers at {self.url}; start it with "
                "`serve run serve.app:build run=...`, or give another --url",
                is_absent=True,
            ) from error
        except httpx.TimeoutException as error:
            raise EndpointBusy(f"{self.url}{path} did not answer in time") from error
        except httpx.TransportError as error:
            raise EndpointBusy(f"{self.url}{path}: {error or type(error).__name__}") from error
        except httpx.HTTPError as error:
            raise ServeError(f"{self.url}{path}: {error}") from error

    def _refusal(self, path: str, response: httpx.Response) -> ServeError:
        text, kind = _error_of(response)
        message = f"{self.url}{path}: {response.status_code}: {text}"
        # Not of the endpoint's shape: Ray's proxy says it when the ingress died under a request.
        is_from_proxy = response.status_code == 500 and not kind
        if response.status_code in BUSY_STATUS or is_from_proxy:
            return EndpointBusy(message, retry_after_s=wait_asked(response.headers))
        return ServeError(message)


def _present(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}


def _lines(response: httpx.Response) -> Iterator[str]:
    """Lines that a line feed ends; JSON may hold other ends of lines, where httpx would cut."""
    rest = b""
    for data in response.iter_bytes():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            if line:
                yield line.decode()


def _failure(where: str, error: Mapping[str, Any]) -> ServeError:
    """An error that came in the middle of a stream."""
    message = f"{where}: {error['message']}"
    return EndpointBusy(message) if error["type"] in PASSING_TYPES else ServeError(message)


def _error_of(response: httpx.Response) -> tuple[str, str]:
    """Message and type of an error body; the text of anything else."""
    try:
        error = response.json()["error"]
        return str(error["message"]), str(error.get("type"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.text[:200], ""
