"""The real pipeline, small, with its store in a bucket.

In a file of its own: Ray's processes get the server's address and keys from the environment, so
they start after the bucket is there.
"""

import pytest
from small import small_config_text

from lorid.artifacts.records import fetch
from lorid.artifacts.store import open_store
from lorid.config import parse_config
from lorid.distributed.pipeline import run_pipeline

pytestmark = [pytest.mark.cluster, pytest.mark.vllm, pytest.mark.s3, pytest.mark.timeout(600)]


def test_the_whole_pipeline_with_its_store_in_a_bucket(s3_bucket, tmp_path):
    config = parse_config(small_config_text(store=f"s3://{s3_bucket}/lorid", name="bucket"))
    records = run_pipeline(config, announce=lambda _: None)
    store = open_store(config.store)
    for record in records.values():
        fetch(store, record, into=tmp_path / record.kind)
    assert (tmp_path / "report" / "report.html").stat().st_size > 1000
