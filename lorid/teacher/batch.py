"""BatchTeacher: the same requests through a provider's batch API, at half the price.

    asks gather --> file --> batch --> poll --> output and error file --> each ask its reply
                       |        |
                       journal: file and keys, then the batch's id

The journal lies beside the ledger (`ledgers/{name}/batches/`) and is written before anything is
waited for. After a crash an ask whose key is in a journaled batch waits for that one instead of
being paid for again; a batch whose id did not reach the journal is found by its file. Lines that
failed, expired or are missing are failures like any other, and come in a later batch.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from lorid.artifacts.store import ArtifactStore
from lorid.config import TeacherConfig
from lorid.errors import ArtifactError
from lorid.teacher.api import body_of, connect, explained, read_completion
from lorid.teacher.base import Reply, TeacherRequest
from lorid.teacher.failures import Failed, Failure, damaged, of_status, short
from lorid.teacher.ledger import folder_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

ENDPOINT = "/v1/chat/completions"
MAX_FILE_BYTES = 150 * 1024**2
UPLOAD_TIMEOUT_S = 900.0
MAX_LISTED = 1000
_ENDED = {"completed", "failed", "expired", "cancelled"}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A batch as the journal knows it; `batch_id` None means that its id may have been lost."""

    entry: str
    file_id: str
    batch_id: str | None
    keys: Sequence[str]


class Journal:
    """Which batches were sent, in the store."""

    def __init__(self, store: ArtifactStore, *, name: str) -> None:
        self.store, self.folder = store, f"{folder_of(name)}batches/"

    def write(self, sent: Sent) -> None:
        """Note a batch, or its id; durable after the call."""
        content = json.dumps(asdict(sent)).encode()
        self.store.write(f"{self.folder}{sent.entry}.json", content)

    def read(self) -> list[Sent]:
        """All of them, the oldest first.

        Raises:
            ArtifactError: the store cannot be read, or an entry is damaged.
        """
        found: list[Sent] = []
        for key in self.store.list(self.folder):
            try:
                found.append(Sent(**json.loads(self.store.read(key))))
            except (ValueError, TypeError) as error:
                raise ArtifactError(
                    f"{key} in the store {self.store.uri} is damaged; remove it to pay for that "
                    "batch again, or restore it"
                ) from error
        return found


@dataclass(kw_only=True)
class _Batch:
    """A batch that is being followed, and who waits for its lines."""

    sent: Sent
    waiting: dict[str, asyncio.Future[Reply]] = field(default_factory=dict)
    results: dict[str, Reply | Failure] | None = None
    task: asyncio.Task[None] | None = None


class BatchTeacher:
    """See `lorid.teacher.base.Teacher`."""

    def __init__(
        self,
        teacher: TeacherConfig,
        *,
        key: SecretStr,
        identity: Mapping[str, Any],
        journal: Journal,
    ) -> None:
        assert teacher.api is not None
        self.api, self.config, self.sampling = teacher.api, teacher.batch, teacher.sampling
        self.key, self.identity, self.journal = key, identity, journal
        self.client: AsyncOpenAI | None = None
        self.known: dict[str, _Batch] | None = None
        self.gathering: dict[str, tuple[bytes, asyncio.Future[Reply]]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.timer: asyncio.TimerHandle | None = None

    async def ask(self, request: TeacherRequest) -> Reply:
        """See `Teacher.ask`; takes as long as a batch takes."""
        if self.known is None:
            # Without an await between: all asks meet the same map.
            self.known = {
                key: batch
                for batch in (_Batch(sent=sent) for sent in self.journal.read())
                for key in batch.sent.keys
            }
            self.client = connect(self.api, self.key)
        key = request.key(self.identity)
        # An earlier batch is asked for a line once: what failed there goes into a new one.
        batch = self.known.pop(key, None)
        if batch is not None:
            return await self._line_of(batch, key)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        body = body_of(request, api=self.api, sampling=self.sampling)
        line = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
        self.gathering[key] = (json.dumps(line).encode(), reply)
        self._send_soon()
        return await reply

    async def aclose(self) -> None:
        """See `Teacher.aclose`; the batches themselves go on at the provider."""
        for task in self.tasks:
            task.cancel()
        if self.client is not None:
            await self.client.close()

    def _send_soon(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        loop = asyncio.get_running_loop()
        is_full = len(self.gathering) >= self.config.max_requests
        if is_full:
            self._send()
        else:
            self.timer = loop.call_later(self.config.gather_s, self._send)

    def _send(self) -> None:
        group, size = dict[str, tuple[bytes, asyncio.Future[Reply]]](), 0
        gathered, self.gathering = self.gathering, {}
        for key, (line, reply) in gathered.items():
            if group and size + len(line) > MAX_FILE_BYTES:
                self._start(self._work_off(group))
                group, size = {}, 0
            group[key] = (line, reply)
            size += len(line) + 1
        if group:
            self._start(self._work_off(group))

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _work_off(self, group: dict[str, tuple[bytes, asyncio.Future[Reply]]]) -> None:
        waiting = {key: reply for key, (_, reply) in group.items()}
        try:
            sent = await self._submit(group)
        except Exception as error:
            for reply in waiting.values():
                _refuse(reply, error)
            return
        await self._follow(_Batch(sent=sent, waiting=waiting))

    async def _submit(self, group: Mapping[str, tuple[bytes, Any]]) -> Sent:
        assert self.client is not None
        content = b"\n".join(line for line, _ in group.values())
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        entry = f"{started}-{secrets.token_hex(4)}"
        with explained(self.key):
            file = await self.client.files.create(
                file=(f"{entry}.jsonl", content), purpose="batch", timeout=UPLOAD_TIMEOUT_S
            )
        sent = Sent(entry=entry, file_id=file.id, batch_id=None, keys=tuple(group))
        await asyncio.to_thread(self.journal.write, sent)
        return await self._create(sent)

    async def _create(self, sent: Sent) -> Sent:
        assert self.client is not None
        with explained(self.key):
            batch = await self.client.batches.create(
                input_file_id=sent.file_id,
                endpoint=ENDPOINT,
                completion_window=self.config.completion_window,  # type: ignore[arg-type]
                metadata={"lorid": sent.entry},
            )
        sent = replace(sent, batch_id=batch.id)
        await asyncio.to_thread(self.journal.write, sent)
        return sent

    async def _line_of(self, batch: _Batch, key: str) -> Reply:
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if batch.results is not None:
            _answer(reply, batch.results.get(key))
        else:
            batch.waiting[key] = reply
            if batch.task is None:
                batch.task = self._start(self._follow(batch))
        return await reply

    async def _follow(self, batch: _Batch) -> None:
        try:
            batch.results = await self._results(batch.sent)
        except Exception as error:
            for reply in batch.waiting.values():
                _refuse(reply, error)
            batch.results = {}
            return
        for key, reply in batch.waiting.items():
            _answer(reply, batch.results.get(key))

    async def _results(self, sent: Sent) -> dict[str, Reply | Failure]:
        if sent.batch_id is None:
            sent = await self._found(sent)
        if sent.batch_id is None:
            return {}
        batch = await self._ended(sent.batch_id)
        results: dict[str, Reply | Failure] = {}
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                results |= read_results(await self._content(file_id))
        if batch.status == "failed":
            failure = _why_failed(batch)
            results = {key: results.get(key, failure) for key in sent.keys}
        return results

    async def _found(self, sent: Sent) -> Sent:
        """The batch that was made of this file, where a crash came before its id was noted."""
        assert self.client is not None
        num_seen = 0
        with explained(self.key):
            async for batch in self.client.batches.list(limit=100):
                if batch.input_file_id == sent.file_id:
                    return replace(sent, batch_id=batch.id)
                num_seen += 1
                if num_seen >= MAX_LISTED:
                    break
        return sent

    async def _ended(self, batch_id: str) -> Any:
        assert self.client is not None
        while True:
            try:
                with explained(self.key):
                    batch = await self.client.batches.retrieve(batch_id)
            except Failed as failed:
                if failed.failure.kind in ("fatal", "refused"):
                    raise
            else:
                if batch.status in _ENDED:
                    return batch
            await asyncio.sleep(self.config.poll_s)

    async def _content(self, file_id: str) -> bytes:
        assert self.client is not None
        while True:
            try:
                with explained(self.key):
                    content = await self.client.files.content(file_id, timeout=UPLOAD_TIMEOUT_S)
                    return content.content
            except Failed as failed:
                if failed.failure.kind in ("fatal", "refused"):
                    raise
            await asyncio.sleep(self.config.poll_s)


def read_results(content: bytes) -> dict[str, Reply | Failure]:
    """What the lines of an output or error file say, by key; lines of no use are passed over."""
    results: dict[str, Reply | Failure] = {}
    for line in content.split(b"\n"):
        try:
            row: Any = json.loads(line)
            key, response = str(row["custom_id"]), row.get("response") or {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        body = json.dumps(response.get("body"))
        status = response.get("status_code")
        try:
            if status == 200:
                results[key] = read_completion(body)
            elif isinstance(status, int):
                results[key] = of_status(status, headers={}, body=body)
            else:
                results[key] = damaged(f"in the batch: {json.dumps(row.get('error'))}")
        except Failed as failed:
            results[key] = failed.failure
    return results


def _why_failed(batch: Any) -> Failure:
    errors = getattr(batch.errors, "data", None) or []
    code = short(str(getattr(errors[0], "code", ""))) if errors else ""
    message = short(str(getattr(errors[0], "message", ""))) if errors else "no reason given"
    # Too much is enqueued already: that passes.
    kind = "passing" if "limit" in code else "refused"
    return Failure(kind=kind, reason=f"the batch failed: {code} {message}")


def _answer(reply: asyncio.Future[Reply], result: Reply | Failure | None) -> None:
    if isinstance(result, Reply):
        if not reply.done():
            reply.set_result(result)
        return
    _refuse(reply, Failed(result or damaged("the batch ended without this line")))


def _refuse(reply: asyncio.Future[Reply], error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)
