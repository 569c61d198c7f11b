"""HAProxy as lorid lets Ray Serve start it: the real one, with what Serve writes for it."""

import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from free_ports import free_port, free_ports
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from lorid.distributed import haproxy
from lorid.errors import ResourceError, ServeError

COMMAND = str(Path(sys.executable).with_name(haproxy.COMMAND))


def written(folder: Path, *, port: int, is_deployed: bool = True) -> Path:
    """The file that Ray Serve writes for an application with one replica, or before that."""
    metrics_port, stats_port = free_ports(2)
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "server-state"),
        metrics_enabled=False,
        metrics_port=metrics_port,
        stats_port=stats_port,
        has_received_routes=True,
        has_received_servers=True,
        is_head=True,
    )
    replica = ServerConfig(name="replica", host="127.0.0.1", port=1)
    app = BackendConfig(name="http-lorid", path_prefix="/", app_name="lorid", servers=[replica])
    file = folder / "haproxy.cfg"
    apps = {app.name: app} if is_deployed else {}
    api = HAProxyApi(config, apps, config_file_path=str(file))
    api._generate_config_file_internal()
    return file


def wait_until(is_so, *, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def place(tmp_path_factory):
    """A short path: that of a Unix socket has at most 107 bytes."""
    return tmp_path_factory.mktemp("h")


def test_only_the_endpoint_is_open_and_only_its_user_commands_it(place):
    port = free_port()
    file = written(place, port=port)
    with (
        (place / "err").open("wb") as err,
        subprocess.Popen([COMMAND, "-db", "-f", str(file)], stderr=err) as started,
    ):
        try:
            url = f"http://127.0.0.1:{port}/-/routes"

            def answers() -> bool:
                assert started.poll() is None, (place / "err").read_text()
                with suppress(httpx.TransportError):
                    return httpx.get(url, trust_env=False).status_code == 200
                return False

            wait_until(answers)
            process = psutil.Process(started.pid)
            assert Path(process.exe()).name == "haproxy"
            listening = [
                one.laddr
                for one in process.net_connections("inet")
                if one.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
            ]
            assert [(one.ip, one.port) for one in listening] == [("127.0.0.1", port)]
            assert stat.S_IMODE((place / "admin.sock").stat().st_mode) == 0o600
            with socket.socket(socket.AF_UNIX) as admin:
                admin.connect(str(place / "admin.sock"))
                admin.sendall(b"show info\n")
                assert f"Pid: {started.pid}".encode() in admin.makefile("rb").read()
        finally:
            started.terminate()
    # No line for a request.
    assert "/-/routes" not in (place / "err").read_text()


def test_before_anything_is_known_to_be_deployed_no_path_is_called_wrong(place):
    port = free_port()
    later = haproxy.closed(written(place, port=port).read_text())
    assert " status 404 " in later
    file = written(place, port=port, is_deployed=False)
    with subprocess.Popen([COMMAND, "-db", "-f", str(file)], stderr=subprocess.DEVNULL) as started:
        try:
            wait_until((place / "admin.sock").exists)
            url = f"http://127.0.0.1:{port}/v1/solve"
            answer = httpx.post(url, json={}, trust_env=False)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        finally:
            started.terminate()


def test_it_ends_with_the_process_that_started_it(place):
    file = written(place, port=free_port())
    parent = (
        "import subprocess, sys, time\n"
        "print(subprocess.Popen(sys.argv[1:], stdout=sys.stderr).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", parent, COMMAND, "-db", "-f", str(file)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as started:
        assert started.stdout
        child = psutil.Process(int(started.stdout.readline()))
        wait_until((place / "admin.sock").exists)
        started.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(
    ("known", "other"),
    [
        ("listen stats", "listen figures"),
        ("frontend prometheus", "frontend figures"),
        ("mode 666", "mode 777"),
        ("local0 info", "local0 debug"),
    ],
)
def test_what_serve_does_not_write_today_is_refused(place, known, other):
    file = written(place, port=free_port())
    text = file.read_text()
    assert known in text
    with pytest.raises(ServeError, match="RAY_SERVE_ENABLE_HA_PROXY=0"):
        haproxy.closed(text.replace(known, other))
    file.write_text(text.replace(known, other))
    ended = subprocess.run([COMMAND, "-f", str(file)], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "another configuration" in ended.stderr


def test_its_folder_is_nobody_elses(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    monkeypatch.setattr(haproxy, "FOLDER", folder)
    told = haproxy.environment()
    assert told["RAY_SERVE_HAPROXY_BINARY_PATH"] == COMMAND
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for key in ("SOCKET_PATH", "CONFIG_FILE_LOC", "SERVER_STATE_BASE", "SERVER_STATE_FILE"):
        assert told[f"RAY_SERVE_HAPROXY_{key}"].startswith(str(folder))

    folder.chmod(0o755)
    with pytest.raises(ResourceError, match="only you"):
        haproxy.environment()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResourceError, match="only you"):
        haproxy.environment()


def test_what_earlier_clusters_left_goes(place, monkeypatch):
    monkeypatch.setattr(haproxy, "FOLDER", place)
    place.chmod(0o700)
    for name in ("gone", "new", "runs"):
        (place / name).mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "runs" / "admin.sock"))
        listening.listen()
        for name in ("gone", "runs"):
            os.utime(place / name, (0, 0))
        haproxy.environment()
    assert sorted(one.name for one in place.iterdir()) == ["new", "runs"]


def test_the_environment_has_the_last_word(monkeypatch):
    def forbidden() -> dict[str, str]:
        raise AssertionError

    monkeypatch.setattr(haproxy, "environment", forbidden)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    haproxy.prepare()
    monkeypatch.setattr(haproxy, "environment", lambda: {"RAY_SERVE_HAPROXY_NBTHREAD": "1"})
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_NBTHREAD", "7")
    haproxy.prepare()
    assert os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] == "7"


def test_a_ray_that_runs_has_settings_of_its_own(monkeypatch):
    monkeypatch.setattr(haproxy, "environment", lambda: {"RAY_SERVE_HAPROXY_NBTHREAD": "9"})
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.delenv("RAY_SERVE_HAPROXY_NBTHREAD", raising=False)
    haproxy.prepare()
    assert "RAY_SERVE_HAPROXY_NBTHREAD" not in os.environ
