"""A connection to an S3 server, and its errors in one line with the fix.

Credentials, region, endpoint, checksum settings and addressing style come from boto3's own chain:
environment, `~/.aws` files, roles. Where that chain says nothing, checksums are only computed when
required (lorid sends Content-MD5 and verifies SHA-256 itself, and servers other than AWS's refuse
the newer headers), and a server of one's own is addressed by path.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lorid.artifacts.retries import Damaged, code_and_status, wait_s
from lorid.artifacts.versions import package_versions
from lorid.errors import ArtifactError, ArtifactIncomplete, explained_os_error, one_line

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 30
NUM_CONNECTIONS = 32
ASKED_FIRST_BYTES = 1024**2
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
MISSING = {"NoSuchKey", "404", "NotFound"}
_DENIED = "the credentials may not do this; check their policy"
_WRONG_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_EXPIRED = "the credentials have expired; renew them (for example: aws sso login) and run again"
_CLOCK = (
    "this machine's clock differs from the server's; set it (for example: timedatectl set-ntp 1)"
)
_FIXES = {
    "NoSuchBucket": "create the bucket, or name another one (store=s3://bucket/prefix)",
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "InvalidAccessKeyId": _WRONG_KEYS,
    "SignatureDoesNotMatch": _WRONG_KEYS,
    "InvalidToken": _EXPIRED,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION",
    "QuotaExceeded": "the server's quota is used up; free some space or raise it",
    "InsufficientStorage": "the server's disk is full; free some space",
    "507": "the server's disk is full; free some space",
    "MissingContentLength": "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
}


def connect() -> Any:
    """A boto3 client; it retries nothing itself, `lorid.artifacts.retries` does.

    Raises:
        ArtifactError: the endpoint is no URL.
        ValueError, botocore.exceptions.BotoCoreError: other settings are malformed.
    """
    import boto3
    import botocore.session
    from botocore.config import Config

    core = botocore.session.get_session()
    try:
        profile: Mapping[str, Any] = core.get_scoped_config()
    except Exception:  # a profile that does not exist: the client says so below
        profile = {}
    options: dict[str, Any] = {}
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        if f"AWS_{name.upper()}" not in os.environ and name not in profile:
            options[name] = "when_required"
    # Content-MD5 is signed instead of a SHA-256 of each body: one pass less over everything.
    settings: dict[str, Any] = {"payload_signing_enabled": False}
    of_profile = profile.get("s3", {})
    if _has_own_endpoint(profile) and "addressing_style" not in of_profile:
        settings["addressing_style"] = "path"
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=NUM_CONNECTIONS,
        # Also to save time: boto3 composes its own anew for each request, a tenth of its work.
        user_agent=f"lorid/{package_versions().get('lorid', 'unknown')}",
        s3={**of_profile, **settings} if isinstance(of_profile, Mapping) else settings,
        **options,
    )
    client = boto3.Session(botocore_session=core).client("s3", config=config)
    client.meta.events.register_last("before-call.s3.PutObject", _send_small_at_once)
    return client


def _send_small_at_once(params: dict[str, Any], **_: Any) -> None:
    """Not to ask first whether a small body is welcome: that costs a round trip for each."""
    if params["body"].getbuffer().nbytes <= ASKED_FIRST_BYTES:
        params["headers"].pop("Expect", None)


def _has_own_endpoint(profile: Mapping[str, Any]) -> bool:
    """Whether the settings name an endpoint.

    Raises:
        ArtifactError: it is no URL.
    """
    sources: dict[str, Any] = {name: os.environ.get(name) for name in ENDPOINT_VARIABLES}
    sources["endpoint_url of the profile"] = profile.get("endpoint_url")
    given = {name: str(url) for name, url in sources.items() if url}
    for name, url in given.items():
        if not url.startswith(("http://", "https://")):
            raise ArtifactError(
                f"{name} is {url!r}, which has no scheme; write http://{url} or https://{url}"
            )
    return bool(given)


@contextmanager
def explained(uri: str, key: str) -> Iterator[None]:
    """Turn what boto3 raises in the block into one line with cause and fix."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        code, status = code_and_status(error)
        if code in MISSING:
            raise ArtifactIncomplete(f"{uri} holds no {key}") from error
        raise ArtifactError(problem(uri, code, status)) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise ArtifactError(
            f"store {uri}: no credentials; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile, or run where a role is attached"
        ) from error
    except (exceptions.BotoCoreError, ValueError, Damaged) as error:
        raise ArtifactError(_unreachable(uri, error)) from error
    except OSError as error:
        # Sockets' own errors have no file; a disk's have.
        if error.filename is None and isinstance(error, ConnectionError | TimeoutError):
            raise ArtifactError(_unreachable(uri, error)) from error
        doing = f"write {error.filename}" if error.filename else f"store or fetch {key}"
        raise ArtifactError(explained_os_error(error, doing=doing)) from error
    except Exception as error:
        from urllib3.exceptions import HTTPError

        if isinstance(error, HTTPError):
            raise ArtifactError(_unreachable(uri, error)) from error
        raise


def problem(uri: str, code: str, status: int) -> str:
    """A line about an answer of the server."""
    if code in _FIXES:
        return f"store {uri}: the server answered {code}; {_FIXES[code]}"
    if status >= 500 or status == 429:
        return (
            f"store {uri}: the server still answers {code} ({status}) after {wait_s():.0f} s; "
            "see its log, then run again: what is finished is kept"
        )
    return (
        f"store {uri}: the server answered {code} ({status}); check AWS_ENDPOINT_URL, see its log"
    )


def _unreachable(uri: str, error: BaseException) -> str:
    cause = one_line(error)
    return f"store {uri}: {cause}; check the network, AWS_ENDPOINT_URL and the region"
