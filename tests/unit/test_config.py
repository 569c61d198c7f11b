"""A config is right as a whole, or every problem is named at once."""

import pytest
import yaml

from lorid.config import dump_config, load_config, parse_config
from lorid.errors import ConfigError
from lorid.method.stopping import LIVE_RULES
from lorid.presets import PRESETS, preset_named


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_complete_and_reads_back_equal(name):
    config = preset_named(name)
    assert parse_config(dump_config(config)) == config


def test_the_published_settings_are_the_defaults_for_real_models():
    config = preset_named("gsm8k_mistral")
    assert (config.sampling.temperature, config.sampling.top_p, config.sampling.top_k) == (
        1.5,
        0.9,
        50,
    )
    assert (config.feedback.rule, config.feedback.max_rounds) == ("paper", 20)
    assert (config.training.rank, config.training.alpha) == (512, 1024)


def test_every_problem_is_named_at_once_with_its_field():
    text = """
preset: demo
training: {rank: 0, learning_rate: fast, ranks: 3}
sampling: {temperature: .nan}
data: {source: web}
student: {family: gpt9}
"""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="run.yaml")
    message = str(caught.value)
    assert message.startswith("run.yaml: 6 problem(s)")
    for field in (
        "training.rank", "training.learning_rate", "training.ranks", "sampling.temperature",
        "data.source", "student.family",
    ):  # fmt: skip
        assert f"  {field}: " in message
    assert "spelling" in message
    assert "llama2" in message


def test_a_problem_elsewhere_does_not_hide_that_two_fields_do_not_fit():
    text = """
preset: demo
seed: -1
sampling: {max_new_tokens: 600}
teacher: {sampling: {max_new_tokens: 900}, num_engines: 0}
training: {rank: 0, mode: fused, use_dora: true}
data: {source: jsonl, num_train: 0}
"""
    with pytest.raises(ConfigError, match="8 problem") as caught:
        parse_config(text)
    for field in (
        "seed", "engine", "teacher.engine", "teacher.num_engines", "training.rank",
        "training.use_dora", "data.test", "data.num_train",
    ):  # fmt: skip
        assert f"\n  {field}: " in str(caught.value)


def test_what_a_file_leaves_out_is_said_with_a_fix():
    with pytest.raises(ConfigError, match=r"student: required; .*preset: demo"):
        parse_config("name: mine")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[1, 2]", "expected a mapping"),
        ("a: [1", "not valid YAML"),
        ("preset: huge", "unknown preset 'huge': choose one of demo"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("preset: demo\nname: ../etc", "name"),
        ("preset: demo\ndata: {source: jsonl}", "'train' and 'test'"),
        ("preset: demo\nsampling: {max_new_tokens: 512}", "max_model_len"),
        ("preset: demo\nteacher: {sampling: {max_new_tokens: 512}}", r"teacher\.engine: .*512"),
        ("preset: demo\ntraining: {mode: fused, use_dora: true}", "cannot be trained fused"),
        ("preset: demo\nsampling: {temperature: 3}", r"sampling\.temperature: .*equal to 2"),
        ("preset: demo\ntraining: [1, 2]", "training: expected a mapping"),
        ("preset: demo\ntraining:", "training: expected a mapping"),
        ("preset: demo\nseed: 1\nseed: 2", "given twice: seed"),
        ("preset: demo\n\tseed: 1", "not valid YAML"),
        ("preset: demo\nseed: " + "9" * 5000, "not valid YAML"),
        ("preset: demo\nseed: 2024-13-45", "not valid YAML"),
        ("[" * 20_000, "not valid YAML"),
        ("preset: demo\nstore: ''", "store"),
        ("preset: demo\ntraining: {num_epochs_by_role: {deep_reasoner: -1}}", "greater than 0"),
    ],
)
def test_a_malformed_config_is_one_clear_error(text, named):
    with pytest.raises(ConfigError, match=named):
        parse_config(text)


def test_files_and_overrides_change_what_they_name_and_nothing_else(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"preset": "demo", "training": {"rank": 4}}))
    config = load_config(file, overrides=["training.alpha=8", "store=s3://bucket/x"])
    base = preset_named("demo")
    training = base.training.model_copy(update={"rank": 4, "alpha": 8})
    assert config == base.model_copy(update={"training": training, "store": "s3://bucket/x"})


@pytest.mark.parametrize("override", ["rank", "=3", "a..b=1"])
def test_a_malformed_override_is_explained(override):
    with pytest.raises(ConfigError, match=r"section\.field=value"):
        parse_config("", preset="demo", overrides=[override])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")


def test_an_override_whose_value_is_no_yaml_is_named():
    with pytest.raises(ConfigError, match=r"--set 'training\.rank=\[1': not valid YAML"):
        parse_config("preset: demo", overrides=["training.rank=[1"])


@pytest.mark.parametrize("rule", LIVE_RULES)
def test_every_rule_that_needs_no_label_can_be_configured(rule):
    config = parse_config("preset: demo", overrides=[f"feedback.rule={rule}", "feedback.tau=0.8"])
    policy = config.feedback.policy(max_rounds=3)
    assert (policy.rule, policy.max_rounds, policy.tau) == (rule, 3, 0.8)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("feedback.rule=paper-oracle", "label"),
        ("feedback.rule=best", "feedback.rule"),
        ("feedback.tau=0.5", "feedback.tau"),
        ("feedback.tau=1", "feedback.tau"),
        ("feedback.max_wave_rounds=0", "feedback.max_wave_rounds"),
    ],
)
def test_feedback_out_of_range_is_refused(override, named):
    with pytest.raises(ConfigError, match=named):
        parse_config("preset: demo", overrides=[override])


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["teacher.kind=api"], "needs teacher.api"),
        (["teacher.model=null"], "needs teacher.model"),
        (["teacher.max_cost=3"], "needs teacher.prices"),
        (["teacher.kind=api", "teacher.api={model: m, base_url: 'ftp://x'}"], "http://"),
        (["teacher.kind=api", "teacher.api={model: m, base_url: 'https://u:pw@x/v1'}"], "password"),
        (["teacher.kind=api", "teacher.api={model: m, extra: {seed: 3}}"], "other fields"),
        (["teacher.kind=api", "teacher.api={model: m, api_key_env: 'sk-1234'}"], "api_key_env"),
    ],
)
def test_a_teacher_that_cannot_be_asked_is_refused(overrides, problem):
    with pytest.raises(ConfigError, match=problem):
        load_config(None, preset="demo", overrides=overrides)
