"""Seal what was asked: the offered files, if they are the very bytes that another machine has asked and
judged. Standard library only: the job that may write installs nothing and loads no model.

An offer (slm/ci/offer.py) claims. The recheck (slm/ci/recheck.py) asks. Of both, the seal takes hashes and
checked values, and nothing else.
"""

import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slm.errors import UserError, brief
from slm.files import Json, replacing, sha256_file, write_json
from slm.verdict.judged import Figures, read_typed
from slm.verdict.released import SEAL, SEALED, hold_manifest

OFFERED, RECHECKED = Path("offered"), Path("rechecked")
MANIFEST, FINDINGS, PREDICTIONS_FILE = "OFFER.json", "findings.json", "predictions.jsonl"
EXAM_RESULT = Path("exam-result") / "result.json"


@dataclass(frozen=True)
class Reference:
    """Another rung that is offered to time the package beside. share: of its time that a request takes."""

    rung: str
    share: float


@dataclass(frozen=True)
class Offer:
    """What a run says of the package that it made. passed: by its own gate; files: SHA-256 by name."""

    name: str
    variant: str
    passed: bool
    weights_sha256: str
    folder_sha256: str
    files: dict[str, str]
    reference: Reference | None = None


@dataclass(frozen=True)
class GateResult:
    name: str
    mark: str
    why: str


@dataclass(frozen=True)
class Findings:
    """What the recheck found. offered: SHA-256 of the files that it was given; share: as in Reference."""

    commit: str
    passed: bool
    weights_sha256: str
    folder_sha256: str
    offered: dict[str, str]
    predictions_sha256: str
    figures: Figures
    sandbox: str
    seconds: float
    gates: list[GateResult]
    share: float | None = None


@dataclass(frozen=True)
class ExamResult:
    commit: str
    folder_sha256: str
    passed: bool
    score: float
    n: int
    public_score: float
    why: str


def read_offer(folder: Path = OFFERED) -> Offer:
    """OFFER.json, once every file beside it is the one that it names."""
    offer = read_typed(folder / MANIFEST, Offer)
    names = [offer.name, offer.variant, *offer.files, *([offer.reference.rung] if offer.reference else [])]
    for name in names:
        if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
            raise UserError(f"{folder / MANIFEST}: {brief(name, 60)!r} is no plain name; nothing is sealed")
    wanted = {f"{offer.name}.tar.gz", PREDICTIONS_FILE, "dvc.lock", "facts.tar.gz"}
    wanted |= {"reference.tar.gz"} if offer.reference else set()
    if odd := sorted(wanted ^ set(offer.files)):
        raise UserError(
            f"{folder / MANIFEST}: {odd[0]} is missing, or does not belong there; nothing is sealed"
        )
    hold_manifest(folder, MANIFEST, offer.files, "offered")
    return offer


def seal_offer(commit: str, exam: bool) -> Json:
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
    findings = read_typed(RECHECKED / FINDINGS, Findings)
    heard = RECHECKED / PREDICTIONS_FILE
    if findings.passed == any(gate.mark == "FAIL" for gate in findings.gates):
        raise UserError(f"{RECHECKED / FINDINGS}: what it says of the package is not what its gates say")
    result = read_typed(EXAM_RESULT, ExamResult) if exam else None
    claims: list[tuple[str, Any, Any]] = [
        ("commit", findings.commit, commit),
        ("files", findings.offered, offer.files),
        ("package", findings.folder_sha256, offer.folder_sha256),
        ("weights", findings.weights_sha256, offer.weights_sha256),
        ("predictions", findings.predictions_sha256, sha256_file(heard) if heard.is_file() else None),
    ]
    if result:
        claims += [
            ("exam's commit", result.commit, commit),
            ("exam's package", result.folder_sha256, offer.folder_sha256),
        ]
    for what, found, true in claims:
        if found != true:
            raise UserError(
                f"{RECHECKED / FINDINGS}: {what} is not that of the offer; nothing is sealed. Run the whole "
                "workflow again"
            )
    with replacing(SEALED) as folder:
        folder.mkdir()
        for name in offer.files:
            shutil.copyfile(OFFERED / name, folder / name)
        shutil.copyfile(heard, folder / PREDICTIONS_FILE)
        write_json(folder / FINDINGS, asdict(findings))
        hashes = {p.name: sha256_file(p) for p in sorted(folder.iterdir())}
        # What was compared above must be what was copied.
        for name, sha256 in (offer.files | {PREDICTIONS_FILE: findings.predictions_sha256}).items():
            if hashes[name] != sha256:
                raise UserError(f"{OFFERED / name} changed while it was sealed; nothing is sealed")
        content = {
            "name": offer.name,
            "variant": offer.variant,
            "commit": commit,
            "passed": offer.passed and findings.passed and (result is None or result.passed),
            "weights_sha256": offer.weights_sha256,
            "folder_sha256": offer.folder_sha256,
            "figures": asdict(findings.figures),
            "reference": offer.reference and {"rung": offer.reference.rung, "share": findings.share},
            "exam": result and {"score": result.score, "n": result.n, "public_score": result.public_score},
            "files": hashes,
        }
        write_json(folder / SEAL, content)
    return content


def refused_by() -> str:
    """What did not pass, as words for a status."""
    findings = read_typed(SEALED / FINDINGS, Findings)
    names = [gate.name for gate in findings.gates if gate.mark == "FAIL"]
    return brief(", ".join(names), 100) or "its own gate, or the hidden exam"
