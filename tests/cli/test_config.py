import dataclasses
import inspect
import math
import tomllib
import typing

import pytest

from rpcnn.config import Config, from_dict, load_config, preset_names, to_dict, to_toml
from rpcnn.config.load import validate
from rpcnn.config.ranges import RANGES
from rpcnn.variant import PAPER, RELEASED, Variant


def test_the_defaults_are_the_papers_cihp_run():
    config = Config()
    assert load_config("cihp_r50") == config
    assert (config.train.iterations, config.train.batch_size, config.train.learning_rate) == (135_000, 16, 0.02)
    assert config.train.steps == (105_000, 125_000)
    assert (*config.data.short_side, config.data.long_side_max) == (512, 864, 1400)
    loss, sampling = config.loss, config.sampling
    assert (loss.lambda_parsing, loss.lambda_semantic, loss.lambda_rescoring) == (2, 2, 1)
    assert (sampling.box_samples, sampling.parsing_samples, config.inference.max_detections) == (512, 16, 100)
    assert config.variant == PAPER


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name):
    assert isinstance(load_config(name), Config)


def groups() -> list:
    return [part for part in vars(Config()).values() if part != PAPER]


def test_at_most_75_fields_and_no_two_of_one_name():
    names = [field.name for group in groups() for field in dataclasses.fields(group)]
    variant = [field.name for field in dataclasses.fields(Variant)]
    assert len(names) <= 75 and len(set(names + variant)) == len(names) + len(variant)


def test_the_variant_is_a_name_or_a_table_over_one(tmp_path):
    assert load_config("painted", ["--variant", "released"]).variant == RELEASED
    (tmp_path / "mine.toml").write_text('[variant]\nbase = "released"\nclamp_iou = true\n')
    config = load_config(tmp_path / "mine.toml")
    assert config.variant == dataclasses.replace(RELEASED, clamp_iou=True)
    assert from_dict(tomllib.loads(to_toml(config))) == config
    (tmp_path / "bad.toml").write_text("[variant]\nclamp = true\n")
    with pytest.raises(ValueError, match=r"\[variant\]: unknown key 'clamp'; did you mean 'clamp_iou'"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text('variant = "mine"\n')
    with pytest.raises(ValueError, match="variant must be one of paper, released, or a table, got 'mine'"):
        load_config(tmp_path / "bad.toml")


def test_options_of_a_data_set_are_words_or_a_table():
    words = ["--data.options", "difficulty=0.3", "short_side=[64, 96]", "look=plain"]
    preset = load_config("painted").data.options
    changed = {"difficulty": 0.3, "short_side": [64, 96], "look": "plain"}
    assert preset["train"] == 600 and load_config("painted", words).data.options == preset | changed


def test_options_do_not_pass_to_another_data_set(tmp_path):
    assert load_config("painted", ["--data.dataset", "cihp"]).data.options == {}
    words = ["--data.dataset", "my.people:Mine", "--data.options", "size=3"]
    assert load_config("painted", words).data.options == {"size": 3}
    (tmp_path / "mine.toml").write_text('base = "painted"\n[data]\ndataset = "folder"\n')
    assert load_config(tmp_path / "mine.toml").data.options == {}
    (tmp_path / "mine.toml").write_text('base = "painted"\n[data]\nroot = "x"\n')
    assert load_config(tmp_path / "mine.toml").data.options["train"] == 600


def test_fields_of_version_0_1_are_translated():
    old = {
        "data": {"dataset": "painted", "short_side_min": 100, "short_side_max": 120, "painted_train": 7, "workers": 2},
        "model": {"score_threshold": 0.1, "lambda_parsing": 3.0, "inclusive_boxes": True, "parsing_chunk": 8},
        "test": {"score_threshold": 0.2, "pictures": 3, "semantic_mode": "parsing", "skip_empty": True},
        "run": {"channels_last": False},
    }
    config = from_dict(old)
    assert (config.data.short_side, config.data.options, config.data.workers) == ((100, 120), {"train": 7}, 2)
    assert (config.inference.min_box_score, config.inference.min_parsing_score) == (0.1, 0.2)
    assert (config.loss.lambda_parsing, config.run.pictures, config.inference.semantic_mode) == (3.0, 3, "parsing")
    assert config.variant == dataclasses.replace(PAPER, inclusive_boxes=True, skip_empty=True)
    assert from_dict({"model": {"box_resolution": 14, "rpn_samples": 256}}).model.parts == {
        "box_head": {"resolution": 14}
    }
    with pytest.raises(ValueError, match="unknown key 'test'"):
        from_dict({"test": {"skip_emty": True}})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.workers", "-1"], "data.workers must lie in 0..1024, got -1"),
        (["--run.pictures", "-1"], "run.pictures must lie in 0..2147483647, got -1"),
        (["--run.save-every", "0"], "run.save_every must lie in 1..2147483647, got 0"),
        (["--model.fpn-channels", "50"], "model.fpn_channels must be a multiple of num_groups"),
    ],
)
def test_numbers_out_of_range_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        load_config("painted", words)


def numeric_fields():
    for group in dataclasses.fields(Config()):
        for name, hint in typing.get_type_hints(type(getattr(Config(), group.name))).items():
            if {int, float} & {hint, *typing.get_args(hint)}:
                yield f"{group.name}.{name}"


def test_every_number_has_a_range():
    assert set(numeric_fields()) == set(RANGES)


@pytest.mark.parametrize("name", RANGES)
def test_nonsense_is_refused_in_every_number(name):
    group, field = name.split(".")
    low, high = RANGES[name]
    for value in (math.nan, math.inf, -math.inf, low - 1, high * 2 + 1, -(10**40), 10**40):
        config = Config()
        section, given = getattr(config, group), getattr(getattr(config, group), field)
        value = (value, value) if isinstance(given, tuple) else value
        setattr(config, group, dataclasses.replace(section, **{field: value}))
        with pytest.raises(ValueError, match=f"^mine: {name} must lie in .*, got "):
            validate(config, "mine")


def test_every_field_is_documented():
    for section in [Variant, *map(type, groups())]:
        source = inspect.getsource(section)
        for field in dataclasses.fields(section):
            line = next(i for i, text in enumerate(source.split("\n")) if text.startswith(f"    {field.name}:"))
            assert source.split("\n")[line + 1].strip().startswith('"""'), f"{section.__name__}.{field.name}"


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
    assert config.inference == base.inference and config.inference.semantic_mode == "parsing"


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
        ("[model]\nbackbone_norm = 'ln'", "model.backbone_norm: must be one of frozen_bn, .*, got 'ln'"),
        ("[model]\nanchor_sizes = [1.5]", "model.anchor_sizes: must be int, got 1.5"),
        ("train = 3", r"\[train\] must be a table, got 3"),
        ("[train", "is not TOML"),
        ("[data]\nshort_side = [900, 864]", "data.short_side must be a range"),
        ("[data]\nshort_side = [900]", "data.short_side: must hold 2 values"),
        ("[train]\nsteps = [20, 10]", r"bad.toml: train.steps must ascend"),
        ("base = 3", r"bad.toml: base must be the name of a preset, got 3"),
        ("base = 'painted'\ndata = 3", r"bad.toml: \[data\] must be a table, got 3"),
        ("inference = 3\n[model]\nscore_threshold = 0.5", r"bad.toml: \[inference\] must be a table"),
        ("[model]\nparts = 3", r"bad.toml: model.parts must be a table, got 3"),
        ("[model.parts]\nrpn = 3", r"bad.toml: model.parts.rpn must be a table, got 3"),
        ("[data]\noptions = [3]", r"bad.toml: data.options must be a table"),
        ("variant = ['paper']", r"bad.toml: variant must be one of"),
        ("[variant]\nbase = {}", r"bad.toml: variant must be one of"),
        ("x = " + "[" * 100_000, "bad.toml is not TOML"),
        ("[train]\niterations = " + "9" * 5000, "bad.toml is not TOML"),
        ("[train]\niterations = 99999999999999999999", "bad.toml: train.iterations must lie in"),
        ("[train]\nlearning_rate = nan", "bad.toml: train.learning_rate must lie in .*got nan"),
    ],
)
def test_a_bad_file_is_explained(tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path / "bad.toml")


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe[train]")
    with pytest.raises(ValueError, match=r"bad.toml is not TOML"):
        load_config(tmp_path / "bad.toml")


@pytest.mark.parametrize("values", [[], None, 3, "paper", {"data": None}, {"train": [1]}])
def test_values_that_are_no_tables_are_named(values):
    with pytest.raises(ValueError, match=r"^here: .*must (hold|be a) table"):
        from_dict(values, "here")


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match=r"neither a file nor a preset.*did you mean 'cihp_r50'"):
        load_config("cihp_r5")
    with pytest.raises(ValueError, match=r"did you mean 'ablations/painted_gse'"):
        load_config("ablations/painted_gs")


def test_an_unknown_option_ends_the_command(capsys):
    with pytest.raises(SystemExit):
        load_config("painted", ["--train.iteratons", "5"])
    assert "iterations" in "".join(capsys.readouterr())
