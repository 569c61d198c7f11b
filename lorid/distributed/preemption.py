"""Notice that the end may be near: from Ray, which drains the node, from EC2, from the driver.

    notices = Notices(ranks)          # a watcher thread, where EC2's metadata service answers
    is_new = notices.seen()           # once a step, on every rank: the same answer on all

Ray's own notice comes by a call that all ranks make together, so the first rank's clock says when.
EC2's is read by whichever node is meant, and reaches the others by a vote; so does the driver's
wish, which the first rank hears. A process that gets SIGTERM or SIGKILL without any of them has no
time to save: it goes on from the last checkpoint.
"""

import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from lorid.training.ranks import Ranks

EC2_ENDPOINT = "http://169.254.169.254"
SECONDS_BETWEEN_ASKS = 2.0
SECONDS_BETWEEN_POLLS = 5.0
TIMEOUT_S = 1.0
TOKEN_LIFE_S = 21600
# An interruption comes two minutes before, a recommendation earlier, or never.
NOTICE_PATHS = ("spot/instance-action", "events/recommendations/rebalance")


class Notices:
    """What this training has been told so far."""

    def __init__(
        self,
        ranks: Ranks,
        *,
        ask_ray: Callable[[], object],
        take_wish: Callable[[], bool] = lambda: False,
        spot: "SpotWatcher | None" = None,
    ) -> None:
        self.ranks, self.ask_ray, self.take_wish = ranks, ask_ray, take_wish
        self.asked = time.monotonic()
        self.known: object = None
        self.spot = spot or SpotWatcher()
        self.spot.start()

    def seen(self) -> bool:
        """Whether any rank has a notice that is new; to be called by all of them, in step."""
        is_first = self.ranks.rank == 0
        is_time = is_first and time.monotonic() - self.asked > SECONDS_BETWEEN_ASKS
        is_spot, is_wish, is_time = self.ranks.any(self.spot.take(), self.take_wish(), is_time)
        if is_time:
            self.asked = time.monotonic()
            found = self.ask_ray()
            if found is not None and found != self.known:
                self.known = found
                return True
        return is_spot or is_wish

    def stop(self) -> None:
        """Look no more."""
        self.spot.stop()


class SpotWatcher(threading.Thread):
    """Asks EC2's metadata service every few seconds; ends at once where there is none.

    The variables of AWS's own clients count: AWS_EC2_METADATA_SERVICE_ENDPOINT, and
    AWS_EC2_METADATA_DISABLED=true for none.
    """

    def __init__(self, *, seconds: float = SECONDS_BETWEEN_POLLS) -> None:
        super().__init__(name="spot-notice", daemon=True)
        endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or EC2_ENDPOINT
        self.base = endpoint.rstrip("/")
        self.seconds = seconds
        self.token = ""
        self.told: dict[str, str] = {}
        self._news, self._stopped = threading.Event(), threading.Event()
        # The service is on the machine's own link: never through a proxy.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def run(self) -> None:
        """Poll until stopped; see `take`."""
        if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            return
        if not self._renew_token():
            return
        while not self._stopped.is_set():
            for path in NOTICE_PATHS:
                text = self._read(path)
                if text and self.told.get(path) != text:
                    self.told[path] = text
                    self._news.set()
            self._stopped.wait(self.seconds)

    def take(self) -> bool:
        """Whether there is a notice that was not taken before."""
        is_new = self._news.is_set()
        self._news.clear()
        return is_new

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _renew_token(self) -> bool:
        life = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_LIFE_S)}
        try:
            self.token = self._ask("PUT", "latest/api/token", life)
        except (OSError, ValueError):
            return False
        return True

    def _read(self, path: str) -> str:
        """A notice's text, empty where there is none (404) or no answer."""
        for _ in range(2):
            try:
                headers = {"X-aws-ec2-metadata-token": self.token}
                return self._ask("GET", f"latest/meta-data/{path}", headers)
            except urllib.error.HTTPError as error:
                if error.code != 401 or not self._renew_token():
                    return ""
            except (OSError, ValueError):
                return ""
        return ""

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(f"{self.base}/{path}", method=method, headers=headers)
        with self._opener.open(request, timeout=TIMEOUT_S) as response:
            return response.read(4096).decode(errors="replace").strip()
