"""Fixtures of all tests: the S3 server, and a bucket in it."""

import os
import secrets
import uuid

import pytest
from ceph_server import ACCESS_KEY, SECRET_KEY, ceph_gateway, is_installed
from hypothesis import HealthCheck, settings

# One token for every cluster of a test run: Ray reads it once per process, when it is imported.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ.pop("RAY_ADDRESS", None)

# No timed assertions: a busy machine is not a wrong one.
settings.register_profile(
    "lorid",
    deadline=None,
    # More of them find more: LORID_EXAMPLES=1000 for a long look.
    max_examples=int(os.environ.get("LORID_EXAMPLES", "50")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lorid")


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory):
    """Ceph's gateway; where it is not installed moto stands in, except in CI."""
    if is_installed():
        with ceph_gateway(tmp_path_factory.mktemp("ceph")) as endpoint:
            yield endpoint
        return
    if os.environ.get("CI") == "true":
        pytest.fail("Ceph is not installed: .ci/run installs radosgw ceph-mon ceph-osd ceph-common")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint, monkeypatch):
    """A new bucket, with boto3's environment set for it."""
    import boto3

    environment = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    bucket = f"lorid-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return bucket
