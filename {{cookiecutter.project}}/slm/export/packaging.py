"""What goes around the model's bytes in a package: model card, bill of materials, checksums, archive."""

import gzip
import shutil
import tarfile
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from huggingface_hub import ModelCard, ModelCardData

from slm.evaluation.ladder import ladder_table
from slm.files import read_json, sha256_file
from slm.tables import markdown

TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def model_card(
    name: str,
    ladder: dict[str, Any],
    shipped: str,
    instruction: str,
    base: str,
    license_name: str,
    tried: dict[str, str],
) -> str:
    """README.md of the package, in the form of the Hugging Face hub
    (https://huggingface.co/docs/hub/model-cards).
    """
    data = ModelCardData(
        license="other" if license_name.startswith("LicenseRef-") else license_name.lower(),
        base_model=base,
        library_name="onnxruntime-genai",
        pipeline_tag="text-generation",
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        ladder=ladder,
        shipped=shipped,
        instruction=instruction,
        table=markdown(ladder_table(ladder)),
        tried=tried,
    )
    return f"{str(card).rstrip()}\n"


def with_waivers(card: str, waivers: list[str]) -> str:
    """The card of a release: what it failed and is let through with, before its limits. The sealed package's
    own card knows no verdict.
    """
    if not waivers:
        return card
    head, _, limits = card.rpartition("\n## Limits\n")
    lines = "".join(f"- {line}\n" for line in waivers)
    return (
        f"{head}\n## Waived gates\n\nIt fails these gates of its contract, and was released all the "
        f"same:\n\n{lines}\n## Limits\n{limits}"
    )


def bill_of_materials(
    name: str, model: Path, weights_sha256: str, base: dict[str, str], license_name: str
) -> str:
    """CycloneDX 1.6 JSON: the model, its files, what it was made from, what runs it. Same bytes for the same
    model.
    """
    bom = Bom()
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, weights_sha256)
    root = Component(
        name=name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=name,
        licenses=[LicenseExpression(license_name)],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=weights_sha256)],
    )
    bom.metadata.component = root
    parts = [
        Component(
            name=path.relative_to(model).as_posix(),
            type=ComponentType.FILE,
            bom_ref=f"file:{path.relative_to(model).as_posix()}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256_file(path))],
        )
        for path in sorted(model.rglob("*"))
        if path.is_file()
    ]
    parts.append(
        Component(
            name=base["name"],
            version=base["version"],
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref="base-model",
            properties=[Property(name="sha256", value=base["sha256"])] if "sha256" in base else [],
        )
    )
    for library in ("onnxruntime", "onnxruntime-genai", "olive-ai", "torch", "transformers"):
        # The build of torch ("+cpu") differs by machine, the version does not.
        parts.append(
            Component(
                name=library,
                version=version(library).split("+")[0],
                type=ComponentType.LIBRARY,
                bom_ref=f"pypi:{library}",
            )
        )
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(root, parts)
    bom.metadata.timestamp = None  # type: ignore[assignment]  # the same bytes whenever it is made
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def checksums(folder: Path) -> str:
    """What `sha256sum --check` reads."""
    names = {
        p.relative_to(folder).as_posix(): p
        for p in folder.rglob("*")
        if p.is_file() and p.name != "SHA256SUMS"
    }
    # by text: paths sort differently on Windows
    return "".join(f"{sha256_file(names[name])}  {name}\n" for name in sorted(names))


def wrong_documents(package: Path) -> str | None:
    """What is wrong with the documents of a package; None if each is there and names the files that are."""
    for name in ("README.md", "sbom.cdx.json", "SHA256SUMS"):
        if not (package / name).exists():
            return f"{name} is missing"
    if (package / "SHA256SUMS").read_text(encoding="utf-8") != checksums(package):
        return "SHA256SUMS does not name these files"
    model = package / "model"
    files = {p.relative_to(model).as_posix(): sha256_file(p) for p in model.rglob("*") if p.is_file()}
    try:
        parts = read_json(package / "sbom.cdx.json")["components"]
        named = {c["name"]: c["hashes"][0]["content"] for c in parts if c["type"] == "file"}
    except (ValueError, KeyError, IndexError, TypeError):
        return "sbom.cdx.json cannot be read"
    return None if named == files else "sbom.cdx.json names other files than those in model/"


def archive(folder: Path, output: Path) -> None:
    """A .tar.gz with the same bytes for the same files: no time, no owner, sorted."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
        info.mode = 0o755 if info.isdir() else 0o644
        return info

    with (
        output.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(
                path,
                arcname=f"{folder.name}/{path.relative_to(folder).as_posix()}",
                recursive=False,
                filter=plain,
            )


def copy_model(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=shutil.copyfile)
