"""A run's config in a bucket."""

import boto3
import pytest

from lorid.artifacts.configs import open_config
from lorid.errors import ConfigError

pytestmark = pytest.mark.s3


def put(bucket: str, key: str, content: bytes) -> str:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)
    return f"s3://{bucket}/{key}"


@pytest.mark.parametrize("key", ["run.yaml", "runs/of/ours/run.yaml"])
def test_it_is_read_like_a_file_with_overrides(s3_bucket, key):
    uri = put(s3_bucket, key, b"preset: demo\nname: from-s3\n")
    config = open_config(uri, overrides=["training.rank=8"])
    assert (config.name, config.training.rank) == ("from-s3", 8)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"preset: demo\ntraining: {rnk: 1}\n", "training.rnk"), (b"\xff\xfe", "not UTF-8")],
)
def test_what_is_wrong_with_it_names_the_object(s3_bucket, content, says):
    uri = put(s3_bucket, "run.yaml", content)
    with pytest.raises(ConfigError, match=says) as caught:
        open_config(uri)
    assert uri in str(caught.value)


def test_one_that_is_not_there_is_the_users_mistake(s3_bucket):
    with pytest.raises(ConfigError, match="no such object"):
        open_config(f"s3://{s3_bucket}/nowhere/run.yaml")
    with pytest.raises(ConfigError, match="s3://bucket/path"):
        open_config(f"s3://{s3_bucket}")
