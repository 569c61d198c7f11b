"""The misbehaving server's files and batches, as a provider's batch API has them.

    POST /v1/files (multipart) -> file -> POST /v1/batches -> poll GET /v1/batches/ID ->
    GET /v1/files/ID/content

A batch is `in_progress` for `batch_s` seconds, then ends. `batch_faults` gives shares: "line 500"
and "line missing" of its lines; "failed" and "expired" (half of it done) of the batches. Lines
count in the log as received when the batch is made and as sent when its output is fetched.
"""

import hashlib
import json
import re
import time
from typing import Any

from model_answers import completion, question_id, question_in
from server_state import State, Ticket, draw

Answer = tuple[int, bytes]
NOT_FOUND: Answer = (404, b'{"error": {"message": "no such object", "code": "not_found"}}')


class BatchJobs:
    """Files and batches by id."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.ready_at: dict[str, float] = {}
        self.tickets: dict[str, list[Ticket]] = {}

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Status and body for a request below /v1."""
        parts = path.strip("/").split("/")
        if parts == ["files"] and method == "POST":
            return _json(self.file_object(self.add_file(_part(body, "file"))))
        if parts == ["batches"]:
            if method == "POST":
                return self.create(json.loads(body))
            data = [self.batch_object(name) for name in reversed(self.batches)]
            return _json({"object": "list", "data": data, "has_more": False})
        if len(parts) >= 2 and parts[0] == "files" and parts[1] in self.files:
            if parts[2:] == ["content"]:
                return self.content(parts[1])
            if method == "DELETE":
                return _json({"id": parts[1], "object": "file", "deleted": True})
            return _json(self.file_object(parts[1]))
        if len(parts) >= 2 and parts[0] == "batches" and parts[1] in self.batches:
            if parts[2:] == ["cancel"]:
                self.batches[parts[1]]["status"] = "cancelled"
            return _json(self.batch_object(parts[1]))
        return NOT_FOUND

    def add_file(self, content: bytes) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        return name

    def file_object(self, name: str) -> dict[str, Any]:
        return {
            "id": name, "object": "file", "bytes": len(self.files[name]), "created_at": 1,
            "filename": "requests.jsonl", "purpose": "batch", "status": "processed",
        }  # fmt: skip

    def content(self, name: str) -> Answer:
        for ticket in self.tickets.pop(name, []):
            self.state.note("sent", ticket)
        return 200, self.files[name]

    def create(self, request: dict[str, Any]) -> Answer:
        if request.get("input_file_id") not in self.files:
            return NOT_FOUND
        name = f"batch_{len(self.batches) + 1}"
        self.batches[name] = {
            "id": name, "object": "batch", "endpoint": request["endpoint"], "errors": None,
            "input_file_id": request["input_file_id"], "completion_window": "24h",
            "status": "in_progress", "output_file_id": None, "error_file_id": None,
            "created_at": int(time.time()), "metadata": request.get("metadata"),
        }  # fmt: skip
        self.ready_at[name] = time.monotonic() + self.state.settings.batch_s
        self.receive(name)
        return _json(self.batch_object(name))

    def receive(self, name: str) -> None:
        batch = self.batches[name]
        tickets = []
        for line in self.files[batch["input_file_id"]].splitlines():
            body = json.loads(line)["body"]
            self.state.num_requests += 1
            question = question_id(question_in(body["messages"]))
            self.state.asked[question] += 1
            ticket = Ticket(
                number=self.state.num_requests,
                question=question,
                body=hashlib.sha256(json.dumps(body).encode()).hexdigest()[:16],
                model=str(body["model"]),
            )
            self.state.note("received", ticket)
            tickets.append(ticket)
        self.tickets[name] = tickets
        batch["request_counts"] = {"total": len(tickets), "completed": 0, "failed": 0}

    def batch_object(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        if batch["status"] == "in_progress" and time.monotonic() >= self.ready_at[name]:
            self.finish(name)
        return batch

    def finish(self, name: str) -> None:
        """Work the batch off, all at once."""
        batch, settings = self.batches[name], self.state.settings
        fault = draw(settings.batch_faults, f"{settings.seed} {name}")
        if fault == "failed":
            batch["status"] = "failed"
            batch["errors"] = {"object": "list", "data": [{"code": "x", "message": "injected"}]}
            return
        lines = self.files[batch["input_file_id"]].splitlines()
        lines = lines[: len(lines) // 2] if fault == "expired" else lines
        output, errors = [], []
        for line, ticket in zip(lines, self.tickets[name], strict=False):
            request = json.loads(line)
            kind = draw(settings.batch_faults, f"{settings.seed} {name} {request['custom_id']}")
            fault_of_text = self.state.fault_of(ticket.question)
            body = completion(request["body"], fault=fault_of_text, number=ticket.number)
            answer = {"id": f"req-{ticket.number}", "custom_id": request["custom_id"],
                      "error": None, "response": {"status_code": 200, "body": body,
                                                  "request_id": f"r{ticket.number}"}}  # fmt: skip
            if kind == "line 500":
                answer["response"] |= {"status_code": 500, "body": {"error": {"code": "x"}}}
                errors.append(answer)
            elif kind != "line missing":
                output.append(answer)
        batch["status"] = "expired" if fault == "expired" else "completed"
        batch["output_file_id"] = self.add_file(_lines(output))
        batch["error_file_id"] = self.add_file(_lines(errors)) if errors else None
        batch["request_counts"] |= {"completed": len(output), "failed": len(errors)}
        self.tickets[batch["output_file_id"]] = self.tickets.pop(name)


def _json(value: object) -> Answer:
    return 200, json.dumps(value).encode()


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _part(body: bytes, name: str) -> bytes:
    """The content of a field of a multipart body."""
    boundary = body.split(b"\r\n", 1)[0]
    for part in body.split(boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if re.search(rb'name="' + name.encode() + rb'"', head):
            return content.removesuffix(b"\r\n")
    return b""
