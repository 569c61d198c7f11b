"""Pages in a real Chromium: files, and the endpoint's from the real HTTP side on a real port."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from ray import serve
from scripting import NoStore, Prepared, small_config
from starlette.types import ASGIApp

from lorid.distributed.access import tokens_for
from lorid.distributed.deployments import student_app
from lorid.distributed.endpoint import make_endpoint
from lorid.distributed.web import make_web
from lorid.engines.scripted import ScriptedEngine

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# What a browser says of an answer that is no 200; the page itself shows these.
EXPECTED = "Failed to load resource: the server responded with a status of"


# Not longer: until it ends, asyncio.run is refused in this thread, which other tests need.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for all tests; each page has a context of its own."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine; .ci/run installs it")
        pytest.skip("no Chromium on this machine; apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def listening() -> Iterator[Callable[[ASGIApp], str]]:
    """Serves an application on a free port of loopback; returns its address."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def listen(app: ASGIApp) -> str:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{sock.getsockname()[1]}"

    yield listen
    for server, thread in servers:
        server.should_exit = server.force_exit = True
        thread.join(timeout=10)


@pytest.fixture
def endpoint_at(listening) -> Callable[..., str]:
    """Makes an endpoint around a scripted engine; returns its address."""

    def start(engine: ScriptedEngine, *, serving: dict | None = None, **feedback: object) -> str:
        config = small_config(**feedback)
        changed = config.serving.model_copy(update=serving or {})
        student = serve.run(
            student_app(config, source=NoStore(config), factory=Prepared(engine)),
            _local_testing_mode=True,
        )
        tokens = tokens_for("127.0.0.1", changed.tokens_file)
        return listening(make_web(make_endpoint(student, changed, tokens=tokens)))

    return start


@pytest.fixture
def requested() -> list[str]:
    """What the pages that `open_page` opened asked for."""
    return []


@pytest.fixture
def open_page(browser, requested) -> Iterator[Callable[..., Page]]:
    """Opens the page; at the end, whatever the browser complained of fails the test."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(EXPECTED):
            complaints.append(message.text)

    def note_failed(request: Request) -> None:
        # A page that stops asking aborts its own request.
        if request.failure != "net::ERR_ABORTED":
            complaints.append(f"{request.url}: {request.failure}")

    def open_at(url: str, **settings: object) -> Page:
        page = browser.new_context(**settings).new_page()
        page.set_default_timeout(10_000)
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", note_failed)
        page.on("request", lambda request: requested.append(request.url))
        page.goto(url)
        return page

    yield open_at
    for context in browser.contexts:
        context.close()
    assert not complaints, complaints


@pytest.fixture
def look(request) -> Callable[[Page, str], None]:
    """Keeps a screenshot in LORID_SCREENSHOTS, if that names a folder."""
    folder = os.environ.get("LORID_SCREENSHOTS")

    def keep(page: Page, name: str) -> None:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(
                path=str(Path(folder) / f"{name}.png"), full_page=True, animations="disabled"
            )

    return keep
