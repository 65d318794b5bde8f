"""Parameters: what ships is right, what is wrong is refused with its line."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from slm.config.edit import PROFILES, merge
from slm.config.params import PARAMS, Params, load_params
from slm.errors import UserError
from slm.files import read_json
from slm.task.definition import load_task
from slm.verdict.contract import load_contract, loosened

ROOT = Path(__file__).parent.parent


def with_profile(name: str) -> Params:
    yaml = YAML(typ="safe")
    params = yaml.load((ROOT / PARAMS).read_text(encoding="utf-8"))
    merge(params, yaml.load((ROOT / PROFILES / f"{name}.yaml").read_text(encoding="utf-8")))
    return Params.model_validate(params)


@pytest.mark.parametrize("profile", sorted(p.stem for p in (ROOT / PROFILES).glob("*.yaml")))
def test_every_shipped_profile_is_valid(profile: str):
    with_profile(profile)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  kl_weight: ", "  kl_wieght: 0.5\n  kl_weight: ", "distill.kl_wieght is unknown"),
        (
            "  kl_weight: ",
            "  kl_weight: 7 # ",
            "distill.kl_weight is 7: Input should be less than or equal to 1",
        ),
        ("seed: ", "seed: -3 # ", "seed is -3"),
        (
            "  method: full ",
            "  rounding: {bits: 4, group_size: 32}\n  method: lora ",
            "rounding needs method: full",
        ),
        ("  neurons: ", "  neurons: 1000 # ", "neurons must be a multiple of rounding.group_size, 32"),
        ("profile: ", "profil: ", "profile is missing"),
        ("compute:", "compute: [", "not YAML"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_line(old: str, new: str, message: str, tmp_path: Path):
    text = (ROOT / PARAMS).read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_params(path)
    assert message in str(error.value)
    assert str(error.value).split(":")[1].isdigit()


def test_a_file_in_another_encoding_or_none_is_named(tmp_path: Path):
    path = tmp_path / "task.yaml"
    path.write_bytes("name: t\nkind: text\ninstruction: café\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"task.yaml:3: byte b'\\xe9' is not UTF-8; save the file as UTF-8"):
        load_task(path)
    path.write_text("name: t\nkind: text\ninstruction: café\n", encoding="utf-8")
    assert load_task(path).instruction == "café"
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"task.yaml: cannot be read \(Is a directory\)"):
        load_task(path)


@pytest.mark.parametrize("text", ["a\\0b", "\\u200b", "a\\u009f", "\\u3164"])
@pytest.mark.parametrize("key", ["name", "instruction", "no_answer", "labels"])
def test_a_task_says_nothing_that_nobody_can_read(key: str, text: str, tmp_path: Path):
    path = tmp_path / "task.yaml"
    for said, wrong in (("plain", False), (text, True)):
        values = {"name": '"n"', "instruction": '"i"', "no_answer": '"none"', "labels": '["a", "b"]'}
        values[key] = f'["a", "{said}"]' if key == "labels" else f'"{said}"'
        path.write_text("kind: label\n" + "".join(f"{k}: {v}\n" for k, v in values.items()), encoding="utf-8")
        if wrong:
            with pytest.raises(UserError, match=rf"task.yaml:\d: {key} is .*U\+"):
                load_task(path)
        else:
            load_task(path)


def test_a_profile_may_set_what_is_off():
    params = {"finetune": {"rounding": None}}
    merge(params, {"finetune": {"rounding": {"bits": 4, "group_size": 64}}})
    assert params == {"finetune": {"rounding": {"bits": 4, "group_size": 64}}}


def test_profile_with_an_unknown_key_is_refused():
    with pytest.raises(UserError, match=r"teach\.epoch is in the profile but not in params\.yaml"):
        merge({"teach": {"epochs": 1}}, {"teach": {"epoch": 2}})


# A contract of the tests' own: yours may say what you like.
CONTRACT = """\
gates:
  - {name: score, severity: block, metric: shipped.score_low, at_least: 0.50}
  - {name: time, severity: block, metric: shipped.request_ms_p50, over: teacher.request_ms_p50, at_most: 0.40}
allowed_licences: [Apache-2.0, MIT]
required_expectations: [leak, schema_error]
released: {margin: 0.03, best_margin: 0.04, time: 1.1, memory: 1.1, weights: 1.1,
  slice_size: 30, slice_alpha: 0.05}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("at_least: 0.50", "at_least: 0.10", "'score' went from 0.5 to 0.1"),
        ("{name: time, severity: block", "{name: time, severity: warn", "'time' only warns now"),
        ("margin: 0.03,", "margin: 0.10,", "released.margin went from 0.03 to 0.1"),
        ("slice_alpha: 0.05", "slice_alpha: 0.01", "released.slice_alpha went from 0.05 to 0.01"),
        (
            "slice_size: 30,",
            "slice_size: 30, best_alpha: 0.001,",
            "released.best_alpha went from 0.015 to 0.001",
        ),
        ("time: 1.1,", "time: 1.5,", "released.time went from 1.1 to 1.5"),
        ("{name: time,", "{name: tempo,", "'time' was removed"),
        ("[Apache-2.0, MIT]", "[Apache-2.0, MIT, GPL-3.0-only]", "allowed_licences allows GPL-3.0-only"),
        ("allowed_licences: [Apache-2.0, MIT]\n", "", "allowed_licences was removed"),
        ("[leak, schema_error]", "[schema_error]", "required_expectations no longer requires leak"),
        ("required_expectations: [leak, schema_error]\n", "", "required_expectations was removed"),
    ],
)
def test_each_loosening_of_the_contract_is_said(old: str, new: str, said: str, tmp_path: Path):
    assert old in CONTRACT
    before, path = tmp_path / "before.yaml", tmp_path / "gates.yaml"
    before.write_text(CONTRACT, encoding="utf-8")
    path.write_text(CONTRACT.replace(old, new, 1), encoding="utf-8")
    assert any(said in line for line in loosened(load_contract(before), load_contract(path)))
    assert loosened(load_contract(path), load_contract(path)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[Apache-2.0, MIT]", "[MIT]"),
        ("[leak, schema_error]", "[leak, schema_error, tags]"),
        ("0.50}", "0.60}"),
    ],
)
def test_a_tighter_contract_is_not_called_looser(old: str, new: str, tmp_path: Path):
    assert old in CONTRACT
    before, path = tmp_path / "before.yaml", tmp_path / "gates.yaml"
    before.write_text(CONTRACT, encoding="utf-8")
    path.write_text(CONTRACT.replace(old, new, 1), encoding="utf-8")
    assert loosened(load_contract(before), load_contract(path)) == []


def test_the_contract_of_this_project_is_valid():
    load_contract(ROOT / "gates.yaml")


@pytest.mark.parametrize(
    "bad", ["gates: []", "gates: [{name: a, severity: block, metric: shipped.score, at_least: .nan}]"]
)
def test_an_impossible_contract_is_refused(bad: str, tmp_path: Path):
    path = tmp_path / "gates.yaml"
    path.write_text(
        bad + "\nreleased: {margin: 0.03, best_margin: 0.04, slice_size: 30, slice_alpha: 0.05}\n"
    )
    with pytest.raises(UserError, match=r"gates\.yaml:1: gates"):
        load_contract(path)


@pytest.mark.parametrize("profile", [None, *sorted(p.stem for p in (ROOT / PROFILES).glob("*.yaml"))])
def test_training_rounds_as_the_recipe_does(profile: str | None):
    params = with_profile(profile) if profile else load_params(ROOT / PARAMS)
    passes = read_json(ROOT / "recipes" / f"{params.quantize.int4}.json")["passes"].values()
    rtn = next(p for p in passes if p["type"] == "Rtn")
    for rounding in (params.distill.rounding, params.finetune.rounding):
        if rounding:
            assert (rtn["bits"], rtn["group_size"], rtn["sym"]) == (rounding.bits, rounding.group_size, True)
