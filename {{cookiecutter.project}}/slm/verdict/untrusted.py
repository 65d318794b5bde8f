"""Check a package from strangers: unpack it within limits, and inspect it before any of it is loaded.

A model is data, but it can make a runtime load a library or a file elsewhere. Everything that does not belong
in a package is refused. Loading it then only computes with numbers.
"""

import json
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from slm.errors import UserError

MODEL_FILES = {
    "model.onnx", "model.onnx.data", "genai_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json",
}  # fmt: skip
OPERATORS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
# Every key that a GenAI configuration of a text model needs. What is not here could name a library, a file or
# a device.
KNOWN_KEYS = {
    "model", "search", "type", "decoder", "filename", "inputs", "outputs", "session_options",
    "provider_options", "log_id", "bos_token_id", "eos_token_id", "pad_token_id", "context_length",
    "vocab_size", "head_size", "hidden_size", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "sliding_window", "window_size", "layers", "input_ids", "attention_mask",
    "position_ids", "past_key_names", "past_value_names", "logits", "present_key_names",
    "present_value_names", "diversity_penalty", "do_sample", "early_stopping", "length_penalty",
    "max_length", "min_length", "no_repeat_ngram_size", "num_beams", "num_return_sequences",
    "past_present_share_buffer", "repetition_penalty", "temperature", "top_k", "top_p", "random_seed",
}  # fmt: skip
READ_AT_ONCE = 1 << 20


def unpack_candidate(archive: Path, folder: Path, limit_mb: float) -> None:
    """Unpack the model files of a zip archive into `folder`, which must not exist.

    Raises:
        UserError: a name that leads elsewhere or is no model file, a link, or more bytes than the limit.
            Nothing stays behind.
    """
    left = int(limit_mb * 1e6)
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                name = PurePosixPath(info.filename)
                if info.is_dir():
                    continue
                if str(name) not in MODEL_FILES:
                    raise UserError(
                        f"the package holds {info.filename[:80]!r}, which is not a model file; it is not "
                        "unpacked"
                    )
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise UserError(f"the package holds {name} as a link; it is not unpacked")
                with zipped.open(info) as source, (folder / name.name).open("xb") as target:
                    # The size that an archive claims may be a lie: what counts is what comes out.
                    while block := source.read(READ_AT_ONCE):
                        left -= len(block)
                        if left < 0:
                            raise UserError(
                                f"the package is larger than {limit_mb:g} MB unpacked; it is not unpacked"
                            )
                        target.write(block)
    except (
        zipfile.BadZipFile,
        FileExistsError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        zlib.error,
        ValueError,
    ) as error:
        shutil.rmtree(folder)
        raise UserError(f"the package is not a complete archive: {error}") from None
    except UserError:
        shutil.rmtree(folder)
        raise


def inspect(folder: Path) -> None:
    """Refuse a model folder that could do more than compute.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.relative_to(folder).as_posix() not in MODEL_FILES:
            raise UserError(f"{path.relative_to(folder).as_posix()[:80]!r} is not a model file")
    for name in ("model.onnx", "genai_config.json"):
        if not (folder / name).is_file():
            raise UserError(f"{name} is missing: this is not a package")
    text = (folder / "genai_config.json").read_bytes()
    try:
        _inspect_config(json.loads(text, object_pairs_hook=_unique))
    except (ValueError, RecursionError) as error:
        raise UserError(f"genai_config.json is not JSON: {str(error)[:80]}") from None
    _inspect_onnx(folder / "model.onnx")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The runtime obeys every one of several equal keys, Python the last: there may be one."""
    names = [name for name, _ in pairs]
    if len(names) != len(set(names)):
        raise UserError(f"genai_config.json: {max(names, key=names.count)[:60]!r} appears twice")
    return dict(pairs)


def _inspect_config(value: Any) -> None:
    """Known keys only, no provider but the processor, no file but those of the folder."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in KNOWN_KEYS or (key == "provider_options" and inner):
                raise UserError(f"genai_config.json: {key[:60]!r} is not allowed in a package")
            if key == "filename" and inner not in MODEL_FILES:
                raise UserError(f"genai_config.json: file name {str(inner)[:80]!r} is not in the package")
            _inspect_config(inner)
    elif isinstance(value, list):
        for inner in value:
            _inspect_config(inner)


def _inspect_onnx(path: Path) -> None:
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise UserError(f"{path.name} is not an ONNX model: {str(error)[:80]}") from None
    for tensor in _tensors(model):
        if uses_external_data(tensor) and ExternalDataInfo(tensor).location != "model.onnx.data":
            raise UserError(
                f"{path.name}: weights in {ExternalDataInfo(tensor).location[:80]!r}, which is not in the "
                "package"
            )
    domains = {node.domain for node in _nodes(model)} | {o.domain for o in model.opset_import}
    if domains - OPERATORS:
        raise UserError(
            f"{path.name}: operators of {sorted(domains - OPERATORS)[0][:80]!r} are not allowed in a package"
        )


def _graphs(model: Any) -> Iterator[Any]:
    """The graph, the functions, and every graph inside an attribute of a node of one of these."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
