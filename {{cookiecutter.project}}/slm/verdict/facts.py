"""What the gate judges, all of it read before anything is judged: files of this checkout, what git knows, the
released models.
"""

import os
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from slm.config.loader import parse_yaml
from slm.config.params import load_params
from slm.errors import UserError
from slm.evaluation.ladder import RUNGS, read_quality
from slm.export.packaging import wrong_documents
from slm.files import folder_mb, folder_sha256, read_json, read_jsonl, sha256_file, weights_sha256
from slm.git import file_at, git_line
from slm.task.definition import Task, load_task
from slm.task.records import TASK, Prediction, Record, read_records
from slm.task.strict import json_lines
from slm.verdict.changes import loosening, parameters_diff
from slm.verdict.contract import CONTRACT, Contract, load_contract
from slm.verdict.released import RELEASED, predictions_of
from slm.verdict.waivers import WAIVERS, Waiver, Waivers, load_waivers

REPORTS, PREDICTIONS = Path("reports"), Path("predictions")
Report = dict[str, Any]


@dataclass(frozen=True)
class PackageFacts:
    """What is in dist/; the hashes are None where there is no model.

    mb: size of all files, in 10^6 bytes.
    wrong_documents: what is wrong with its model card, SBOM or checksums; None if nothing is.
    """

    folder_sha256: str | None
    weights_sha256: str | None
    mb: float
    wrong_documents: str | None


@dataclass(frozen=True)
class Facts:
    """All that a verdict rests on.

    shipped: the variant that ships.
    licences: of the models that it comes from, by what each is: the parameter, and what it says.
    predictions: by rung, each file's header first; rungs that have none are absent.
    quality: reports/quality, by rung; rungs that have none are absent.
    test_ids: of the test set, in order, as they are written; records: the same examples.
    data, synthetic: reports/data.json and reports/synthetic.json; None where a stage has not run.
    released: the released model's entry; baselines: predictions of the released model and of the best so far.
    released_train: train.jsonl of the released commit; None where nothing is released, or this clone lacks
    it.
    changed: parameters that differ from the released commit's: name, before, after.
    weakened: each way in which the contract is looser than it was, as a sentence.
    today: in UTC, by which waivers end.
    """

    contract: Contract
    contract_sha256: str
    waivers: list[Waiver]
    task: Task
    shipped: str
    endpoint_teacher: bool
    licences: dict[str, tuple[str, str]]
    revision: str | None
    ladder: Report
    cost: Report
    quality: dict[str, Report]
    predictions: dict[str, list[Prediction]]
    test_ids: list[Any]
    test_sha256: str
    records: list[Record]
    package: PackageFacts
    data: Report | None
    synthetic: Report | None
    released: Report | None
    baselines: dict[str, list[Prediction] | None]
    released_train: str | None
    changed: list[tuple[str, str, str]]
    weakened: list[str]
    today: date


def collect_facts() -> Facts:
    """Read what there is in this checkout; fetch the released models where they are not here yet.

    Raises:
        UserError: a file is missing without which nothing can be judged.
    """
    params, contract = load_params(), load_contract()
    waivers, shipped = waivers_in_force(contract), params.package.variant
    needed = ("ladder.json", "cost.json", f"quality/{shipped}.json", f"../predictions/{shipped}.jsonl")
    missing = [REPORTS / name for name in needed if not (REPORTS / name).exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; run `slm repro` first (or `slm pull`)")
    test = TASK / "test.jsonl"
    records = read_records(test, answered=True) if any(json_lines(test)) else []
    entries = read_json(RELEASED)
    released = entries.get("released")
    revision = released["revision"] if released else None
    return Facts(
        contract=contract,
        contract_sha256=sha256_file(CONTRACT),
        waivers=waivers,
        task=load_task(),
        shipped=shipped,
        endpoint_teacher=params.synthesize.teacher == "endpoint",
        licences=params.licences,
        revision=git_line("rev-parse", "HEAD"),
        ladder=read_json(REPORTS / "ladder.json"),
        cost=read_json(REPORTS / "cost.json"),
        quality=read_quality(REPORTS),
        predictions=_read_predictions(),
        test_ids=[r.id for r in records],
        test_sha256=sha256_file(test),
        records=records,
        package=_read_package(Path("dist") / params.package.name),
        data=_read_if_there(REPORTS / "data.json"),
        synthetic=_read_if_there(REPORTS / "synthetic.json"),
        released=released,
        baselines={name: predictions_of(entries.get(name)) for name in ("released", "best")},
        released_train=file_at(revision, f"{TASK}/train.jsonl") if revision else None,
        changed=parameters_diff(revision, None) if revision else [],
        weakened=_weakened(revision),
        today=datetime.now(UTC).date(),
    )


def waivers_in_force(contract: Contract) -> list[Waiver]:
    """Those of origin/HEAD, in a pull request's workflow those of the branch that it goes to; of this
    checkout where there is neither.

    A mistake in this checkout's file is an error in any case, so that it is seen before it is merged.
    """
    own = load_waivers(contract)
    for branch in ("HEAD", os.environ.get("GITHUB_BASE_REF")):
        if branch and git_line("rev-parse", "--verify", "--quiet", f"origin/{branch}^{{commit}}"):
            text = file_at(f"origin/{branch}", str(WAIVERS))
            return (
                parse_yaml(text, f"{WAIVERS} of origin/{branch}", Waivers).waivers if text is not None else []
            )
    return own


def _weakened(revision: str | None) -> list[str]:
    """How the contract is looser than at the baseline revision (the released one, else the first commit that
    has it).
    """
    if revision is None:
        log = git_line("log", "--format=%H", "--diff-filter=A", "--", str(CONTRACT))
        revision = log.splitlines()[-1] if log else None
    return loosening(revision, None) if revision else []


def _read_predictions() -> dict[str, list[Prediction]]:
    paths = {name: PREDICTIONS / f"{name}.jsonl" for name in RUNGS}
    return {name: read_jsonl(path) for name, path in paths.items() if path.exists()}


def _read_package(folder: Path) -> PackageFacts:
    model = folder / "model"
    there = model.exists()
    return PackageFacts(
        folder_sha256=folder_sha256(model) if there else None,
        weights_sha256=weights_sha256(model) if there else None,
        mb=folder_mb(folder),
        wrong_documents=wrong_documents(folder),
    )


def _read_if_there(path: Path) -> Report | None:
    return read_json(path) if path.exists() else None
