"""What a replica writes of a request: one line, the audit log's."""

import logging

SERVE = logging.getLogger("ray.serve")


def without_serves_lines() -> None:
    """Leave out what Ray Serve writes of every call in this process: at the ingress, and inside.

    The audit log has who, when, how long and how it ended. Two lines more took half a millisecond
    of a question that is asked alone. With Serve's `log_level: DEBUG` they are there.
    """
    SERVE.addFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    # Serve marks them so, for its own setting `enable_access_log`.
    is_of_a_call = getattr(record, "serve_access_log", False)
    return not is_of_a_call or SERVE.isEnabledFor(logging.DEBUG)
