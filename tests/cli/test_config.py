import dataclasses
import inspect

import pytest

from rpcnn.config import Config, from_dict, load_config, preset_names, to_dict, to_toml
from rpcnn.model import RPRCNN


def test_the_defaults_are_the_papers_cihp_run():
    config = Config()
    assert load_config("cihp_r50") == config
    assert (config.train.iterations, config.train.batch_size, config.train.learning_rate) == (135_000, 16, 0.02)
    assert config.train.steps == (105_000, 125_000)
    assert (config.data.short_side_min, config.data.short_side_max, config.data.long_side_max) == (512, 864, 1400)
    model = config.model
    assert (model.lambda_parsing, model.lambda_semantic, model.lambda_rescoring) == (2, 2, 1)
    assert (model.box_samples, model.parsing_samples, model.max_detections) == (512, 16, 100)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name):
    assert isinstance(load_config(name), Config)


def test_every_model_field_is_an_argument_of_the_network_with_the_same_default():
    arguments = {k: v.default for k, v in inspect.signature(RPRCNN.__init__).parameters.items() if k != "self"}
    fields = dataclasses.asdict(Config().model)
    assert fields == {k: v for k, v in arguments.items() if k != "num_classes"}


def test_every_field_is_documented():
    for group in dataclasses.fields(Config):
        section = type(getattr(Config(), group.name))
        source = inspect.getsource(section)
        for field in dataclasses.fields(section):
            line = next(i for i, text in enumerate(source.split("\n")) if text.startswith(f"    {field.name}:"))
            assert source.split("\n")[line + 1].strip().startswith('"""'), f"{group.name}.{field.name}"


def test_without_a_name_it_is_the_painted_run():
    assert load_config().data.dataset == "painted"


def test_toml_and_back(tmp_path):
    config = load_config("painted", ["--seed", "7", "--train.steps", "10", "20", "--run.output", 'a "b" \\ c'])
    (tmp_path / "c.toml").write_text(to_toml(config), encoding="utf-8")
    assert load_config(tmp_path / "c.toml") == config
    assert from_dict(to_dict(config)) == config


def test_a_file_wins_over_its_base(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "parsing_rcnn"\n[model]\nprsn = true\n[train]\niterations = 5\n')
    config, base = load_config(tmp_path / "mine.toml"), load_config("parsing_rcnn")
    assert (config.model.gse, config.model.prsn, config.train.iterations) == (False, True, 5)
    assert config.test == base.test and config.test.semantic_mode == "parsing"


def test_a_base_has_no_base_and_must_be_there(tmp_path):
    (tmp_path / "one.toml").write_text('base = "ablations/cihp_gse"\n')
    with pytest.raises(ValueError, match="base must be a preset without a base of its own"):
        load_config(tmp_path / "one.toml")
    (tmp_path / "two.toml").write_text('base = "painte"\n')
    with pytest.raises(ValueError, match="did you mean 'painted'"):
        load_config(tmp_path / "two.toml")


def test_the_command_line_wins_over_the_file():
    config = load_config("painted", ["--iterations", "5", "--model.no-prsn", "--batch-size", "2"])
    assert (config.train.iterations, config.model.prsn, config.train.batch_size) == (5, False, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trian]\niterations = 1", "unknown key 'trian'; did you mean 'train'"),
        ("[train]\niteration = 1", "unknown key 'iteration'; did you mean 'iterations'"),
        ("[train]\niterations = 'many'", "train.iterations: must be int, got 'many'"),
        ("[train]\niterations = true", "train.iterations: must be int, got True"),
        ("[model]\nbackbone = 'vgg'", "model.backbone: must be one of resnet18, .*, got 'vgg'"),
        ("[model]\nanchor_sizes = [1.5]", "model.anchor_sizes: must be int, got 1.5"),
        ("train = 3", r"\[train\] must be a table, got 3"),
        ("[train", "is not TOML"),
        ("[data]\nshort_side_min = 900", "data.short_side_min must not exceed"),
        ("[train]\nsteps = [20, 10]", "train.steps must ascend"),
    ],
)
def test_a_bad_file_is_explained(tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path / "bad.toml")


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match=r"neither a file nor a preset.*did you mean 'cihp_r50'"):
        load_config("cihp_r5")
    with pytest.raises(ValueError, match=r"did you mean 'ablations/painted_gse'"):
        load_config("ablations/painted_gs")


def test_an_unknown_option_ends_the_command(capsys):
    with pytest.raises(SystemExit):
        load_config("painted", ["--train.iteratons", "5"])
    assert "iterations" in "".join(capsys.readouterr())
