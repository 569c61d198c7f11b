"""Who may ask: bearer tokens, of which only SHA-256 hashes are kept.

    token, line = new_token("alice")      # `lorid token new alice`: the line goes into the file
    tokens = Tokens(Path("/etc/lorid/tokens"))
    tokens.name_of("Bearer lorid_...")    # "alice", or None

The file holds a line a token, `NAME sha256:HEX`, and comments. It is read again when it changes, so
tokens are added and taken back without a restart. Tokens have 256 random bits: a plain hash of one
cannot be guessed from the file.
"""

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from lorid.errors import ConfigError

TOKEN_PREFIX = "lorid_"
TOKEN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LINE = re.compile(rf"({TOKEN_NAME.pattern})\s+sha256:([0-9a-f]{{64}})")
logger = logging.getLogger("ray.serve.lorid")


def new_token(name: str) -> tuple[str, str]:
    """A new token, and the line of the tokens file that lets it in.

    Raises:
        ConfigError: the name cannot stand in the file.
    """
    if TOKEN_NAME.fullmatch(name) is None:
        raise ConfigError(
            f"token name {name!r}: expected 1 to 63 of letters, digits, dot, dash, underscore"
        )
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    return token, f"{name} sha256:{_hash(token)}"


def read_tokens(path: Path) -> Mapping[str, str]:
    """The hashes in a file, and the name of each.

    Raises:
        ConfigError: the file cannot be read, or a line is no token's; the line is named, not shown.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the tokens file {path}: {cause}") from error
    names: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            # Not shown: somebody may have put the token itself here.
            raise ConfigError(
                f"{path}, line {number}: expected NAME sha256:HEX; `lorid token new` prints it"
            )
        names[match[2]] = match[1]
    return names


class Tokens:
    """The tokens of a file, as it is now.

    Raises:
        ConfigError: the file cannot be read, or holds no token.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = self._stamp_now()
        self._names = read_tokens(path)
        if not self._names:
            raise ConfigError(f"{path} holds no token; `lorid token new NAME` prints a line for it")

    def name_of(self, authorization: str | None) -> str | None:
        """The name of the token in an Authorization header; None if it is not one of ours."""
        self._refresh()
        scheme, _, token = (authorization or "").partition(" ")
        given = _hash(token.strip()) if scheme.lower() == "bearer" else ""
        found: str | None = None
        for known, name in self._names.items():
            # Every one is compared, in constant time: how long it takes tells nothing.
            if hmac.compare_digest(known, given):
                found = name
        return found

    def _refresh(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._names = read_tokens(self.path)
        except ConfigError as error:
            # Half a file, or none for a moment: whoever was let in stays so, and the log says why.
            logger.error("the tokens from before stay: %s", error)
            return
        logger.info("%s was read again: %d tokens", self.path, len(self._names))

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def tokens_for(host: str | None, tokens_file: str | None) -> Tokens | None:
    """The tokens of an endpoint that listens on `host` (None: nobody knows where).

    Raises:
        ConfigError: it can be reached from elsewhere and has no tokens; or the file is unusable.
    """
    if tokens_file is not None:
        return Tokens(Path(tokens_file))
    if host is None or not is_loopback(host):
        raise ConfigError(
            f"the endpoint listens on {host or 'an unknown address'} and has no tokens; set "
            "serving.tokens_file (`lorid token new NAME >> FILE`), or listen on 127.0.0.1"
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
