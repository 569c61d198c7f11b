"""What of Serve's lines a replica keeps."""

import logging

import pytest

from lorid.distributed import logs


@pytest.mark.parametrize(("level", "is_kept"), [(logging.INFO, False), (logging.DEBUG, True)])
def test_serves_line_of_a_call_is_there_for_debugging_alone(caplog, level, is_kept):
    before = list(logs.SERVE.filters)
    try:
        logs.without_serves_lines()
        logs.without_serves_lines()
        with caplog.at_level(level, logger=logs.SERVE.name):
            logs.SERVE.info("CALL solve OK", extra={"serve_access_log": True})
            logs.SERVE.info("anything else")
    finally:
        logs.SERVE.filters[:] = before
    kept = [record.message for record in caplog.records]
    assert kept == (["CALL solve OK", "anything else"] if is_kept else ["anything else"])
