"""What the pipeline refuses before anything is started."""

import pytest

from lorid.config import parse_config
from lorid.distributed.opening import open_run
from lorid.errors import ConfigError

FILES = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("config.json", "holds no model config"),
        ("tokenizer.json", "holds no tokenizer"),
        ("model.safetensors", "holds no weights, which must be safetensors"),
    ],
)
@pytest.mark.parametrize("field", ["student", "teacher.model"])
def test_a_model_folder_that_lacks_a_part_is_refused_by_name(tmp_path, field, missing, named):
    model = tmp_path / "model"
    model.mkdir()
    for name in {*FILES, "pytorch_model.bin"} - {missing}:
        (model / name).touch()
    overrides = [f"{field}.path={model}", f"store={tmp_path / 'store'}"]
    with pytest.raises(ConfigError, match=rf"{field}\.path: .*{named}"):
        open_run(parse_config("preset: demo", overrides=overrides))


def test_a_model_that_is_no_folder_and_no_hub_id_is_refused(tmp_path):
    overrides = [f"student.path={tmp_path}/none", f"store={tmp_path / 'store'}"]
    with pytest.raises(ConfigError, match="neither a folder nor a hub id"):
        open_run(parse_config("preset: demo", overrides=overrides))
