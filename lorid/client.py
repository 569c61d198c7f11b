"""A client of the endpoint.

    with Client("http://127.0.0.1:8000") as client:
        client.solve("Tom has 12 apples. He gives 5 away. How many are left?")["answer"]

Usable from many threads. Answers are the JSON of `lorid.api` as dictionaries.
"""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from lorid.errors import ServeError

CONNECT_TIMEOUT_S = 10.0
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
        self._http.close()

    def solve(
        self,
        question: str,
        *,
        max_rounds: int | None = None,
        rule: str | None = None,
        seed: int | None = None,
    ) -> dict[str, Any]:
        """Solve one question by mutual feedback.

        Raises:
            ServeError: the endpoint cannot be reached, or refuses; the message says why.
        """
        body = {"question": question, "max_rounds": max_rounds, "rule": rule, "seed": seed}
        return self._post("/v1/solve", body)

    def grade(
        self,
        items: Sequence[Mapping[str, Any]],
        *,
        max_rounds: int | None = None,
        rule: str | None = None,
        seed: int | None = None,
        include_transcripts: bool = False,
    ) -> dict[str, Any]:
        """Grade items, each with `id`, `question` and `reference` or `submission`.

        Raises:
            ServeError: as for `solve`.
        """
        body = {
            "items": [dict(item) for item in items],
            "max_rounds": max_rounds,
            "rule": rule,
            "seed": seed,
            "include_transcripts": include_transcripts,
        }
        return self._post("/v1/grade", body)

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
        present = {key: value for key, value in body.items() if value is not None}
        try:
            response = self._http.post(path, json=present)
        except httpx.ConnectError as error:
            raise ServeError(
                f"nothing answers at {self.url}; start it with "
                "`serve run serve.app:build run=...`, or give another --url"
            ) from error
        except httpx.TimeoutException as error:
            raise ServeError(f"{self.url}{path} did not answer in time") from error
        except httpx.HTTPError as error:
            raise ServeError(f"{self.url}{path}: {error}") from error
        if response.is_error:
            raise ServeError(f"{self.url}{path}: {response.status_code}: {_error_of(response)[0]}")
        return response.json()


def _error_of(response: httpx.Response) -> tuple[str, str]:
    """Message and type of an error body; the text of anything else."""
    try:
        error = response.json()["error"]
        return str(error["message"]), str(error.get("type"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.text[:200], ""
