"""A stranger's package: what it may hold, file by file and value by value."""

import json
import struct
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from ruamel.yaml.error import YAMLError

from slm.errors import UserError, brief
from slm.inference.sandbox import Kind
from slm.verdict.foreign_yaml import foreign_yaml
from slm.verdict.genai_config import check_genai_config
from slm.verdict.inspection import inspect
from slm.verdict.onnx_file import check_onnx
from slm.verdict.untrusted import quoted, unpack_candidate

# As the model builder writes it for a small Llama.
CONFIG: dict[str, Any] = {
    "model": {
        "bos_token_id": 1,
        "context_length": 8192,
        "decoder": {
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
            "filename": "model.onnx",
            "head_size": 64,
            "hidden_size": 576,
            "inputs": {
                "input_ids": "input_ids",
                "attention_mask": "attention_mask",
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
            "num_attention_heads": 9,
            "num_hidden_layers": 2,
            "num_key_value_heads": 3,
        },
        "eos_token_id": 2,
        "pad_token_id": 0,
        "type": "llama",
        "vocab_size": 2676,
    },
    "search": {
        "diversity_penalty": 0.0,
        "do_sample": False,
        "early_stopping": True,
        "length_penalty": 1.0,
        "max_length": 8192,
        "min_length": 0,
        "no_repeat_ngram_size": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": True,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        "random_seed": 0,
    },
}
# Of other families, as the model builder writes them.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model.eos_token_id": [128001, 128008, 128009], "model.vocab_size": 128256},
    "qwen2": {"model.bos_token_id": 151643, "model.vocab_size": 151936, "search.repetition_penalty": 1.1},
    "qwen3": {"model.eos_token_id": [151645, 151643], "model.decoder.inputs.position_ids": "position_ids"},
    "gemma2": {"model.vocab_size": 256000, "model.context_length": 8192},
    "gemma3_text": {
        "model.vocab_size": 262144,
        "model.context_length": 131072,
        "model.decoder.sliding_window": {
            "window_size": 512,
            "slide_key_value_cache": False,
            "slide_inputs": False,
            "layers": [0, 1, 2, 3, 4, 6],
            "cache_slack": 16,
        },
    },
    "phi3": {"model.vocab_size": 32064, "model.eos_token_id": [32007, 32001, 32000], "search.temperature": 0},
    "mistral": {"model.decoder.sliding_window": {"window_size": 4096, "layers": []}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """CONFIG with one value."""
    config = json.loads(json.dumps(CONFIG))
    *parts, last = path.split(".")
    at = config
    for part in parts:
        at = at[part]
    at[last] = value
    return config


def paths(value: Any, above: str = "") -> list[str]:
    """The path to every value that is no object."""
    if not isinstance(value, dict):
        return [above]
    return [p for key, inner in value.items() for p in paths(inner, f"{above}.{key}" if above else key)]


PLACES = paths(CONFIG)
TEMPLATES = [p for p in PLACES if p.endswith(("key_names", "value_names"))]
NAMES = [p for p in PLACES if p.endswith(("input_ids", "attention_mask", "logits", "log_id"))]
WHOLE = [
    p for p in PLACES if p.endswith(("_id", "_length", "_size", "heads", "layers", "beams", "top_k", "seed"))
]
WHOLE = [p for p in WHOLE if p not in NAMES]
FLOATS = [p for p in PLACES if p.endswith(("penalty", "temperature", "top_p"))]
TRUTHS = [p for p in PLACES if p.endswith(("do_sample", "early_stopping", "share_buffer"))]
# No form of any value; a check by kind of value below.
NEVER = [
    "%n",
    "%d%n",
    "a\nb",
    "::add-mask::x",
    {"a": 1},
    [[1]],
    None,
    float("nan"),
    float("inf"),
    "\0",
    "é" * 9,
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.twin
def test_configurations_of_many_families_are_let_in(family: str):
    config = changed("model.type", family)
    for path, value in FAMILIES[family].items():
        *parts, last = path.split(".")
        at = config
        for part in parts:
            at = at[part]
        at[last] = value
    check_genai_config(config)


@pytest.mark.parametrize("path", PLACES)
def test_every_value_has_a_form(path: str):
    for value in NEVER:
        with pytest.raises(UserError, match=r"^genai_config\.json: '[\w.]+' is"):
            check_genai_config(changed(path, value))
    key = "model.decoder.session_options.x"
    with pytest.raises(UserError, match="is not allowed"):
        check_genai_config(changed(f"{path.rpartition('.')[0]}.{path.rpartition('.')[2]}x", 1))
    with pytest.raises(UserError, match="is not allowed"):
        check_genai_config(changed(key, 1))


REFUSED = {
    "templates": (
        TEMPLATES,
        *(
            "%s.%d",
            "%21$p",
            "%5d",
            "%ld",
            "%%d",
            "past.key",
            "%d.%d",
            "a%d%",
            "%d" + "a" * 40,
            "%d\n",
            "%d b",
            1,
        ),
    ),
    "names": (NAMES, "a b", "%d", "a" * 100, "##[add-mask]x", "a:b", "a;b", 1, True),
    "whole numbers": (WHOLE, -(1 << 40), 1 << 40, 1.5, "1", True, 1e300),
    "floats": (FLOATS, 1e300, -1e300, "1", True),
    "truths": (TRUTHS, 0, 1, "true", 1.0),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.attack
def test_values_of_another_form_are_refused(kind: str):
    places, *values = REFUSED[kind]
    assert len(places) > 1
    for path in places:
        for value in values:
            with pytest.raises(UserError, match="not allowed in a package"):
                check_genai_config(changed(path, value))


@pytest.mark.parametrize("key", ["filename", "custom_ops_library", "enable_profiling", "config_entries"])
@pytest.mark.attack
def test_a_file_or_a_library_is_never_named(key: str):
    for where in ("model.decoder", "model.decoder.session_options"):
        for value in ("tokenizer.json", "../x", "/etc/passwd", ["a"]):
            with pytest.raises(UserError, match="not allowed in a package"):
                check_genai_config(changed(f"{where}.{key}", value))
    for value in ([{"cuda": {}}], ["x"], {"cuda": {}}):
        with pytest.raises(UserError, match="not allowed in a package"):
            check_genai_config(changed("model.decoder.session_options.provider_options", value))


@pytest.mark.attack
def test_a_quoted_value_is_no_command_to_a_log():
    said = quoted("##[error]x\n::stop-commands::y\u202e")
    assert "##[" not in said and "\n" not in said and "\u202e" not in said
    assert not brief(" \n ::stop-commands::y", 99).startswith("::")
    assert len(quoted("a" * 10000)) < 110 and len(quoted(["a" * 10000])) < 110


def onnx_model(location: str | None = None, domain: str = "", **place: str) -> onnx.ModelProto:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    if location is not None:
        weights.ClearField("float_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
        for key, value in place.items():
            weights.external_data.add(key=key, value=value)
    node = helper.make_node("Identity", ["w"], ["y"], domain=domain)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph([node], "g", [], [output], [weights]))


def branching(location: str) -> onnx.ModelProto:
    """A model whose weights stand inside the branch of an If."""
    inner = onnx_model(location).graph
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [1])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph([node], "g", [flag], [output]))


def with_tensor(**fields: Any) -> onnx.ModelProto:
    """A model with a tensor whose fields are as they are."""
    model = onnx_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    for name, value in fields.items():
        if isinstance(value, list):
            tensor.ClearField(name)
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return model


def sparse() -> onnx.ModelProto:
    model = onnx_model()
    values, indices = helper.make_tensor("v", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1]))
    return model


def sparse_attribute() -> onnx.ModelProto:
    model = onnx_model()
    inner = sparse().graph.sparse_initializer[0]
    attribute = model.graph.node[0].attribute.add(name="a", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.CopyFrom(inner)
    return model


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    onnx.save(onnx_model("model.onnx.data", offset="0", length="4"), folder / "model.onnx")
    (folder / "model.onnx.data").write_bytes(b"\0\0\0\0")
    (folder / "genai_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    return folder


def write(name: str, content: str | bytes) -> Any:
    def plant(package: Path) -> None:
        (package / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return plant


FAULTS = {
    "a library beside it": (write("x.so", ""), "is not a model file"),
    "a folder": (lambda p: (p / "sub").mkdir(), "is not a model file"),
    "a link": (lambda p: (p / "vocab.json").symlink_to("/etc/passwd"), "is not a model file"),
    "no model": (lambda p: (p / "model.onnx").unlink(), "model.onnx is missing"),
    "a key that stands twice": (
        write("genai_config.json", '{"model": {"a": 1}, "model": {}}'),
        "appears twice",
    ),
    "a key that stands twice, deep": (write("tokenizer.json", '{"a": [{"b": 1, "b": 2}]}'), "appears twice"),
    "configuration that is no JSON": (write("genai_config.json", "{"), "genai_config.json is not JSON"),
    "a tokenizer that is no JSON": (write("tokenizer.json", "{"), "tokenizer.json is not JSON"),
    "a list for an object": (write("tokenizer_config.json", "[]"), "is not a JSON object"),
    "no number": (write("tokenizer_config.json", '{"a": NaN}'), "NaN is no number"),
    "too deep for Python": (
        write("tokenizer.json", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
        "is not JSON",
    ),
    "too deep": (write("tokenizer.json", '{"a":' + "[" * 40 + "]" * 40 + "}"), "more than 32 deep"),
    "no text": (write("chat_template.jinja", b"\xff"), "is not UTF-8"),
    "a template without end": (
        write("chat_template.jinja", "a" * (1 << 19)),
        "a package may have 262144 there",
    ),
    "a configuration without end": (
        write("genai_config.json", " " * (1 << 17)),
        "a package may have 65536 there",
    ),
}
MODELS = {
    "weights elsewhere, inside a branch": (branching("/etc/passwd"), "not in the package"),
    "no ONNX": (b"\xff\xff\xff", "is not an ONNX model"),
    "weights elsewhere": (onnx_model("../../../etc/passwd"), "not in the package"),
    "foreign operators": (onnx_model(None, "evil"), "operators of 'evil'"),
    "weights behind the file's end": (onnx_model("model.onnx.data", offset="4"), "model.onnx.data has 4"),
    "weights longer than they are": (onnx_model("model.onnx.data", length="8"), "model.onnx.data has 4"),
    "weights at no number": (onnx_model("model.onnx.data", offset="-4"), "is no number"),
    "weights at a number without end": (onnx_model("model.onnx.data", offset="9" * 30), "is no number"),
    "an unknown key of weights": (onnx_model("model.onnx.data", basepath="/"), "says where its weights are"),
    "more elements than bytes": (with_tensor(dims=[1 << 40], raw_data=b"\0" * 4), "does not hold the"),
    "a shape of 2^120 elements": (with_tensor(dims=[1 << 60, 1 << 60]), "does not hold the"),
    "fewer elements than bytes": (with_tensor(dims=[1], raw_data=b"\0" * 8), "does not hold the"),
    "a negative shape": (with_tensor(dims=[-1]), "has the shape"),
    "a shape without end": (with_tensor(dims=[1] * 1000), "has the shape"),
    "a tensor of texts": (with_tensor(data_type=TensorProto.STRING, string_data=[b"x"]), "has the type 8"),
    "a sparse tensor": (sparse(), "sparse tensors"),
    "a sparse tensor of a node": (sparse_attribute(), "sparse tensors"),
}


@pytest.mark.twin
def test_a_plain_package_is_let_in(package: Path):
    inspect(package, "limits")


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.attack
def test_a_package_with_more_than_a_model_is_refused(name: str, package: Path):
    plant, said = FAULTS[name]
    plant(package)
    with pytest.raises(UserError, match=said):
        inspect(package, "limits")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.attack
def test_an_onnx_file_with_more_than_a_model_is_refused(name: str, package: Path):
    model, said = MODELS[name]
    if isinstance(model, bytes):
        (package / "model.onnx").write_bytes(model)
    else:
        onnx.save(model, package / "model.onnx")
    with pytest.raises(UserError, match=said):
        check_onnx(package)


@pytest.mark.parametrize(
    "name",
    ["../out", "/out", "a/model.onnx", "model.onnx/../../out", "C:\\out", "evil.py", "genai_config.json\n"],
)
@pytest.mark.attack
def test_unpacking_stays_inside_and_leaves_nothing(name: str, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("genai_config.json", "{}")
        zipped.writestr(name, "x")
    with pytest.raises(UserError, match="is not a model file"):
        unpack_candidate(tmp_path / "a.zip", tmp_path / "to", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


@pytest.mark.attack
def test_what_comes_out_counts_not_what_is_claimed(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("model.onnx", bytes(3_000_000))
    with pytest.raises(UserError, match="larger than 2 MB"):
        unpack_candidate(tmp_path / "a.zip", tmp_path / "to", 2)
    unpack_candidate(tmp_path / "a.zip", tmp_path / "to", 4)
    assert (tmp_path / "to" / "model.onnx").stat().st_size == 3_000_000


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 93])
@pytest.mark.attack
def test_another_method_of_compression_is_refused(method: int, tmp_path: Path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("model.onnx", bytes(100), zipfile.ZIP_DEFLATED if method == 93 else method)
    if method == 93:  # of which Python knows no more than the number
        content = path.read_bytes()
        at = content.index(b"PK\1\2") + 10
        path.write_bytes(content[:at] + struct.pack("<H", method) + content[at + 2 :])
    with pytest.raises(UserError, match=f"method {method}"):
        unpack_candidate(path, tmp_path / "to", 1)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(("count", "said"), [(70_000, "without end"), (2, "File exists")])
@pytest.mark.attack
def test_a_list_of_entries_is_bounded_and_names_each_file_once(count: int, said: str, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped, pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        for _ in range(count):
            zipped.writestr("vocab.json", "")
    with pytest.raises(UserError, match=said):
        unpack_candidate(tmp_path / "a.zip", tmp_path / "to", 1)
    assert not (tmp_path / "to").exists()


@pytest.mark.attack
def test_a_text_that_is_too_large_for_its_name_is_not_unpacked(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("chat_template.jinja", bytes(1 << 22))
    with pytest.raises(UserError, match=r"chat_template\.jinja of the package is too large"):
        unpack_candidate(tmp_path / "a.zip", tmp_path / "to", 10)


@pytest.mark.parametrize("kind", ["limits", *(["namespaces"] if sys.platform == "linux" else [])])
def test_an_onnx_file_is_read_in_a_sandbox(kind: Kind, package: Path):
    inspect(package, kind)
    onnx.save(onnx_model(None, "##[error]::x"), package / "model.onnx")
    with pytest.raises(UserError, match=r"operators of '# # \[error\]::x' are not allowed"):
        inspect(package, kind)


@pytest.mark.attack
def test_an_onnx_file_that_unfolds_without_end_is_refused_in_seconds(package: Path):
    """Two bytes of the file are one node in memory."""
    nodes = b"\x0a\x00" * 20_000_000
    (package / "model.onnx").write_bytes(b"\x3a" + _varint(len(nodes)) + nodes)
    with pytest.raises(UserError, match=r"model\.onnx"):
        inspect(package, "limits")


def _varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


BOMB = "a0: &a0 [1, 2, 3]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60))


@pytest.mark.parametrize(
    "text",
    [
        *(BOMB, MERGES, "a: &a [*a]", "[" * 20_000, "{a: " * 20_000, "- " * 20_000, "a: " * 9, "? [1]: 2"),
        *(
            "x" * 500_000,
            "- 1\n" * 22_000,
            "a: " + "9" * 5000,
            "!!python/object:os.system x",
            "a: 9999-99-99",
        ),
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.attack
def test_yaml_that_unfolds_without_end_is_refused_in_seconds(text: str):
    start = time.monotonic()
    with pytest.raises(YAMLError):
        foreign_yaml(text)
    assert time.monotonic() - start < 10


@pytest.mark.twin
def test_yaml_as_people_write_it_is_read():
    assert foreign_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1},
    }
    for path in ("params.yaml", "dvc.yaml", "gates.yaml"):
        assert foreign_yaml((Path(__file__).parents[1] / path).read_text(encoding="utf-8"))
