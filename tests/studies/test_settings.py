"""Settings: what is refused, in one line, and the TOML file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightball.errors import InputError
from lightball.studies.settings import Settings, make, read_toml

NAN, INF = math.nan, math.inf

# (setting, value, how the line shows the value, what it requires)
REFUSED: list[tuple[str, Any, str, str]] = [
    ("batch_sizes", (), "empty", "at least one value"),
    ("batch_sizes", (8, 0), "0,8", "whole numbers from 1 up"),
    ("batch_sizes", (-8,), "-8", "whole numbers from 1 up"),
    ("batch_sizes", (8.5,), "8.5", "of type int"),
    ("batch_sizes", (True,), "True", "of type int"),
    ("batch_sizes", ("8",), "'8'", "of type int"),
    ("batch_sizes", "8", "'8'", "a list"),
    ("lr", (), "empty", "at least one value"),
    ("lr", (0.0, 0.1), "0.0,0.1", "finite effective learning rates above 0"),
    ("lr", (-0.1,), "-0.1", "finite effective learning rates above 0"),
    ("lr", (NAN,), "nan", "finite effective learning rates above 0"),
    ("lr", (0.1, NAN), "nan", "finite effective learning rates above 0"),
    ("lr", (INF,), "inf", "finite effective learning rates above 0"),
    ("lr", ("fast",), "'fast'", "of type float"),
    ("momentum", (), "empty", "at least one value"),
    ("momentum", (0.0,), "0.0", "above 0 and below 1"),
    ("momentum", (0.0, 0.9), "0.0,0.9", "above 0 and below 1"),
    ("momentum", (-0.1,), "-0.1", "above 0 and below 1"),
    ("momentum", (1.0,), "1.0", "above 0 and below 1"),
    ("momentum", (1.5,), "1.5", "above 0 and below 1"),
    ("momentum", (NAN,), "nan", "above 0 and below 1"),
    ("epochs", 0, "0", "a whole number from 1 up"),
    ("epochs", -3, "-3", "a whole number from 1 up"),
    ("epochs", 2.5, "2.5", "of type int"),
    ("epochs", True, "True", "of type int"),
    ("stages", (), "[]", "from 6 up"),
    ("stages", (5,), "[5]", "from 6 up"),
    ("stages", (2, 16), "[2, 16]", "from 6 up"),
    ("stages", (32, 16), "[32, 16]", "strictly increasing"),
    ("stages", (16, 16), "[16, 16]", "strictly increasing"),
    ("stages", (16.5,), "16.5", "of type int"),
    ("tuning_seeds", 0, "0", "a whole number from 1 up"),
    ("margin_loss", 0.0, "0.0", "a number between 0 and 1"),
    ("margin_loss", 1.0, "1.0", "a number between 0 and 1"),
    ("margin_loss", NAN, "nan", "a number between 0 and 1"),
    ("margin_accuracy", -0.1, "-0.1", "a number between 0 and 1"),
    ("margin_accuracy", NAN, "nan", "a number between 0 and 1"),
    ("margin_accuracy", "wide", "'wide'", "of type float"),
    ("select", "test_accuracy", "test_accuracy", "train_loss or validation_accuracy"),
    ("sampling", "random", "random", "shuffle or iid"),
    ("drop_last", 1, "1", "of type bool"),
    ("weight_decay", -1e-4, "-0.0001", "a finite number from 0 up"),
    ("weight_decay", NAN, "nan", "a finite number from 0 up"),
    ("weight_decay", INF, "inf", "a finite number from 0 up"),
    ("schedule", "exponential", "exponential", "constant, cosine"),
    ("schedule", "step:2:0.1", "2", "between 0 and 1"),
    ("schedule", 3, "3", "of type str"),
    ("max_extensions", -1, "-1", "a whole number from 0 up"),
    ("compile", "yes", "yes", "auto or on or off"),
    ("engine", "ray", "ray", "vectorised or process or command"),
    ("precision", "fp16", "fp16", "float32 or bfloat16 or float16"),
    ("accumulate", 0, "0", "a whole number from 1 up"),
    ("accumulate", 1.5, "1.5", "of type int"),
    ("eval_every", -1, "-1", "a whole number from 1 up, or 0 for an epoch"),
    ("checkpoint", "first", "first", "last or best or median"),
    ("num_steps", -1, "-1", "a whole number from 1 up, or 0 for epochs"),
    ("num_steps", 1.5, "1.5", "of type int"),
    ("decay", "biases", "biases", "all or matrices"),
    ("in_backward", 1, "1", "of type bool"),
    ("tune", "sgd", "sgd", "both or sgdm"),
    ("confirm_rates", "all", "all", "grid or selected"),
    ("batch_norm", "none", "none", "each or once or frozen"),
    ("ell", 0, "0", "a whole number from 1 up"),
    ("ell", 2.5, "2.5", "of type int"),
    ("clip_norm", -1.0, "-1.0", "a finite number from 0 up"),
    ("clip_norm", INF, "inf", "a finite number from 0 up"),
]


def refusal(**values: Any) -> str:
    with pytest.raises(InputError) as caught:
        make(values)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("name", "value", "shown", "required"), REFUSED)
def test_refused_in_one_line_with_name_value_and_requirement(name: str, value: Any, shown: str, required: str) -> None:
    message = refusal(**{name: value})
    assert name.replace("_", "-") in message or name in message
    assert shown in message
    assert required in message


def test_every_setting_has_a_refusal_above() -> None:
    assert {name for name, *_ in REFUSED} == {field.name for field in fields(Settings)}


def test_sgd_takes_the_rate_of_one_sgdm_only() -> None:
    assert refusal(tune="sgdm", momentum=(0.9, 0.99)) == (
        "tune is sgdm, but must be both with momentum 0.9,0.99: SGD can take the rate of one SGDM only"
    )
    assert make({"tune": "sgdm", "momentum": 0.5}).tune == "sgdm"


def test_the_defaults_are_those_of_the_protocol() -> None:
    s = Settings()
    assert (s.batch_sizes, s.momentum, s.epochs) == ((8, 32, 128, 512), (0.9,), 24)
    assert (s.stages, s.margin_loss, s.margin_accuracy) == ((16, 32, 64), 0.01, 0.005)
    assert s.decision_stages.alphas == (0.01, 0.015, 0.025)
    assert s.select == "train_loss"


def test_family_is_batch_sizes_times_momenta_times_two_measures() -> None:
    assert Settings().family_size == 8
    assert Settings(batch_sizes=(8, 32), momentum=(0.5, 0.9, 0.99)).family_size == 12


def test_lists_are_sorted_without_repeats_and_a_single_number_is_a_list() -> None:
    settings = make({"batch_sizes": [32, 8, 32], "lr": 0.1, "momentum": (0.99, 0.9)})
    assert (settings.batch_sizes, settings.lr, settings.momentum) == ((8, 32), (0.1,), (0.9, 0.99))


def test_equal_settings_are_equal_in_every_byte() -> None:
    """A TOML file writes 1 and [16, 32], a flag gives 1.0 and (16, 32): the same runs must be found again."""
    a = make({"lr": [1], "weight_decay": 0, "stages": [16, 32]})
    b = make({"lr": (1.0,), "weight_decay": 0.0, "stages": (16, 32)})
    assert a == b
    assert hash(a) == hash(b)
    assert json.dumps(asdict(a)) == json.dumps(asdict(b))


@given(
    st.lists(st.integers(1, 10**6), min_size=1),
    st.lists(st.floats(1e-9, 1e9), min_size=1),
    st.lists(st.floats(0.001, 0.999), min_size=1),
)
def test_law_valid_settings_survive_being_written_and_read(
    sizes: list[int], lr: list[float], beta: list[float]
) -> None:
    settings = make({"batch_sizes": sizes, "lr": lr, "momentum": beta})
    assert make(json.loads(json.dumps(asdict(settings)))) == settings


class TestSources:
    def test_later_wins_and_none_is_not_given(self) -> None:
        settings = make({"epochs": 3, "tuning_seeds": 2}, {"epochs": 5, "tuning_seeds": None})
        assert (settings.epochs, settings.tuning_seeds) == (5, 2)

    def test_false_and_zero_are_given(self) -> None:
        settings = make({"drop_last": True, "max_extensions": 3}, {"drop_last": False, "max_extensions": 0})
        assert (settings.drop_last, settings.max_extensions) == (False, 0)

    def test_unknown_name(self) -> None:
        message = refusal(batch_size=8)
        assert message.startswith("unknown setting 'batch_size': the settings are batch-sizes, lr, momentum")


class TestToml:
    def read(self, folder: Path, text: str, **also: object) -> dict[str, Any]:
        path = folder / "study.toml"
        path.write_text(text, encoding="utf-8")
        return read_toml(path, also)

    def refuse(self, folder: Path, text: str, **also: object) -> str:
        with pytest.raises(InputError) as caught:
            self.read(folder, text, **also)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_names_with_dash_or_underscore(self, tmp_path: Path) -> None:
        values = self.read(tmp_path, "batch-sizes = [8, 32]\ntuning_seeds = 2\nlr = 0.1\nsampling = 'iid'")
        assert values == {"batch_sizes": (8, 32), "tuning_seeds": 2, "lr": 0.1, "sampling": "iid"}

    def test_values_are_checked_like_all_others(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="lr is nan, but must be finite"):
            make(self.read(tmp_path, "lr = nan"))
        with pytest.raises(InputError, match="epochs is '3', but must be of type int"):
            make(self.read(tmp_path, "epochs = '3'"))

    def test_unknown_key_lists_the_settings(self, tmp_path: Path) -> None:
        message = self.refuse(tmp_path, "batchsize = 8")
        assert message.startswith("unknown setting 'batchsize' in ")
        assert all(field.name.replace("_", "-") in message for field in fields(Settings))

    def test_a_table_is_an_unknown_key(self, tmp_path: Path) -> None:
        assert "unknown setting 'study'" in self.refuse(tmp_path, "[study]\nlr = [0.1]")

    def test_other_keys_on_request_with_their_type(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, "out = 'here'", out="") == {"out": "here"}
        assert self.refuse(tmp_path, "out = 3", out="") == "out is 3, but must be of type str"

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"cannot read the settings file '.*gone.toml': No such file"):
            read_toml(tmp_path / "gone.toml")

    def test_not_toml(self, tmp_path: Path) -> None:
        assert "is not TOML: " in self.refuse(tmp_path, "lr: 0.1")

    def test_not_text(self, tmp_path: Path) -> None:
        path = tmp_path / "study.toml"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match="is not TOML"):
            read_toml(path)
