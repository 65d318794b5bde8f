"""Seal what was asked: the offered files, if they are the very bytes that another machine has asked and
judged. Standard library only: the job that may write installs nothing and loads no model.

An offer (slm/ci/offer.py) claims. The recheck (slm/ci/recheck.py) asks. Of both, the seal takes hashes and
checked values, and nothing else.
"""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files import Json, read_json, replacing, sha256_file, write_json
from slm.verdict.released import SEAL, SEALED, hold_manifest

OFFERED, RECHECKED = Path("offered"), Path("rechecked")
MANIFEST, FINDINGS, PREDICTIONS_FILE = "OFFER.json", "findings.json", "predictions.jsonl"
EXAM_RESULT = Path("exam-result") / "result.json"
LARGEST_FINDINGS = 1 << 20  # bytes
# Of the shipped model, as the recheck found them.
SEALED_FIGURES = (
    "score",
    "score_low",
    "score_high",
    "n",
    "valid_rate",
    "request_ms_p50",
    "rss_mb",
    "weights_mb",
)


def _hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w[\w.-]{0,99}", value, re.ASCII) is not None


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e12


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 2000 and value.isprintable()


def _files(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= 20
        and all(map(_name, value))
        and all(map(_hash, value.values()))
    )


def _gates(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 200
        and all(isinstance(row, dict) and set(row) == {"name", "mark", "why"} for row in value)
        and all(_text(cell) for row in value for cell in row.values())
    )


def _figures(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == set(SEALED_FIGURES) and all(map(_number, value.values()))


def _reference(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and set(value) == {"rung", "share"}
        and _name(value["rung"])
        and _number(value["share"])
    )


def _commit(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{40}", value) is not None


Form = dict[str, Callable[[Any], bool]]
OFFER_FORM: Form = {
    "name": _name,
    "variant": _name,
    "passed": lambda v: isinstance(v, bool),
    "weights_sha256": _hash,
    "folder_sha256": _hash,
    "reference": _reference,
    "files": _files,
}
FINDINGS_FORM: Form = {
    "commit": _commit,
    "passed": lambda v: isinstance(v, bool),
    "weights_sha256": _hash,
    "folder_sha256": _hash,
    "offered": _files,
    "predictions_sha256": _hash,
    "figures": _figures,
    "share": lambda v: v is None or _number(v),
    "sandbox": _text,
    "seconds": _number,
    "gates": _gates,
}
EXAM_FORM: Form = {
    "commit": _commit,
    "folder_sha256": _hash,
    "passed": lambda v: isinstance(v, bool),
    "score": _number,
    "n": _number,
    "public_score": _number,
    "why": _text,
}


def read_checked(path: Path, form: Form) -> Json:
    """A JSON object with just these keys, each value as its form allows.

    Raises:
        UserError: names the file and the key.
    """
    if not path.is_file() or path.is_symlink() or path.stat().st_size > LARGEST_FINDINGS:
        raise UserError(f"{path} is missing, or larger than 1 MB; run the job that makes it again")
    try:
        value = read_json(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {str(error)[:80]}") from None
    if not isinstance(value, dict) or set(value) != set(form):
        differing = sorted(set(value) ^ set(form)) if isinstance(value, dict) else ["no object"]
        raise UserError(f"{path}: {differing[0][:40]!r} is missing, or does not belong there")
    for key, allowed in form.items():
        if not allowed(value[key]):
            raise UserError(f"{path}: the value of {key!r} is not of its form")
    return value


def read_offer(folder: Path = OFFERED) -> Json:
    """OFFER.json, once every file beside it is the one that it names."""
    offer = read_checked(folder / MANIFEST, OFFER_FORM)
    hold_manifest(folder, MANIFEST, offer["files"], "offered")
    return offer


def seal(commit: str, exam: bool) -> Json:
    """Put the offered files into sealed/, with the predictions and figures that the recheck heard.

    Args:
        commit: of the default branch; the recheck must speak of it.
        exam: the contract has a hidden exam, so its result must be here.

    Returns:
        SEAL.json. Its `passed` says whether offer, recheck and exam all passed.

    Raises:
        UserError: a file that was not asked, or findings of another commit or other bytes.
    """
    if exam and not EXAM_RESULT.exists():
        raise UserError(
            "the repository has a hidden exam (exam/), and this run has no result of it: set the secrets "
            "EXAM_REQUESTS_KEY and EXAM_ANSWERS_KEY, as `slm exam new` prints, and run the workflow again"
        )
    offer = read_offer()
    findings = read_checked(RECHECKED / FINDINGS, FINDINGS_FORM)
    heard = RECHECKED / PREDICTIONS_FILE
    result = read_checked(EXAM_RESULT, EXAM_FORM) if exam else None
    claims = [
        ("commit", findings["commit"], commit),
        ("files", findings["offered"], offer["files"]),
        ("package", findings["folder_sha256"], offer["folder_sha256"]),
        ("weights", findings["weights_sha256"], offer["weights_sha256"]),
        ("predictions", findings["predictions_sha256"], sha256_file(heard) if heard.is_file() else None),
    ]
    if result:
        claims += [
            ("exam's commit", result["commit"], commit),
            ("exam's package", result["folder_sha256"], offer["folder_sha256"]),
        ]
    for what, found, true in claims:
        if found != true:
            raise UserError(
                f"{RECHECKED / FINDINGS}: {what} is not that of the offer; nothing is sealed. Run the whole "
                "workflow again"
            )
    with replacing(SEALED) as folder:
        folder.mkdir()
        for name in offer["files"]:
            shutil.copyfile(OFFERED / name, folder / name)
        shutil.copyfile(heard, folder / PREDICTIONS_FILE)
        shutil.copyfile(RECHECKED / FINDINGS, folder / FINDINGS)
        hashes = {p.name: sha256_file(p) for p in sorted(folder.iterdir())}
        # What was read above must be what was copied.
        for name, sha256 in (offer["files"] | {PREDICTIONS_FILE: findings["predictions_sha256"]}).items():
            if hashes[name] != sha256:
                raise UserError(f"{OFFERED / name} changed while it was sealed; nothing is sealed")
        content = {
            "name": offer["name"],
            "variant": offer["variant"],
            "commit": commit,
            "passed": offer["passed"] and findings["passed"] and (result is None or result["passed"]),
            "weights_sha256": offer["weights_sha256"],
            "folder_sha256": offer["folder_sha256"],
            "figures": findings["figures"],
            "reference": offer["reference"]
            and {"rung": offer["reference"]["rung"], "share": findings["share"]},
            "exam": result and {key: result[key] for key in ("score", "n", "public_score")},
            "files": hashes,
        }
        write_json(folder / SEAL, content)
    return content


def refused_by(content: Json) -> str:
    """What did not pass, as words for a status."""
    findings = json.loads((SEALED / FINDINGS).read_text(encoding="utf-8"))
    names = [row["name"] for row in findings["gates"] if row["mark"] == "FAIL"]
    return ", ".join(names) or "its gates, or its exam"
