"""Ask the very bytes that will be sealed, on another machine than the one that made them: the whole test set,
their time, and, where there is one, the hidden exam. What the offer claims must be what is found.
"""

import math
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from slm.ci.device import ASSUMED, TOLERANCE
from slm.ci.seal import (
    FINDINGS,
    MANIFEST,
    OFFERED,
    PREDICTIONS_FILE,
    RECHECKED,
    Findings,
    GateResult,
    read_offer,
)
from slm.config.params import Params, load_params
from slm.errors import UserError, brief
from slm.evaluation.cost import SPREAD, side_by_side
from slm.files import (
    Json,
    read_json,
    read_jsonl,
    replacing,
    sha256_file,
    unpack,
    write_json,
    write_jsonl,
)
from slm.git import git
from slm.github import LARGEST_ASSET_MB
from slm.inference.asking import ask_singly
from slm.inference.sandbox import Kind, chosen_sandbox
from slm.task.definition import load_task
from slm.task.records import Prediction, fixed_sample, read_records
from slm.verdict.inspection import inspect
from slm.verdict.judge import HEARD_FILE, TEST, judge_package
from slm.verdict.registry import RECHECK
from slm.verdict.rows import Row, Verdict, rows_of


def allowed_share() -> float:
    """Share of the answers that may differ on another machine."""
    return read_json(TOLERANCE)["tolerance"] if TOLERANCE.exists() else ASSUMED


def answers_as_claimed(claimed: list[Prediction], heard: list[Prediction], allowed: float) -> Row:
    """Whether the stored predictions are what this package says. One that is missing counts as another."""
    stored = {p["id"]: p["answer"] for p in claimed}
    differing = sum(stored.get(p["id"]) != p["answer"] for p in heard) + max(0, len(claimed) - len(heard))
    share = differing / max(1, len(heard))
    why = f"{differing} of {len(heard)} answers are not those of the predictions that were offered"
    if share > allowed:
        why += "; the package did not make these predictions: run `slm repro` and commit dvc.lock"
    return RECHECK["answers"].row(share <= allowed, round(share, 4), allowed, why)


def time_as_claimed(claimed: float | None, found: float | None) -> Row:
    """Whether the package takes the share of the other rung's time that the reports say."""
    if claimed is None or found is None:
        return RECHECK["time"].row(None, None, None, "no other rung is offered to time it beside")
    within = math.isfinite(found) and found <= claimed * SPREAD
    why = f"a request takes {found:.2f} of the other rung's time here, and {claimed:.2f} in the reports"
    if not within:
        why += "; run `slm repro` where the machine is quiet, and commit dvc.lock"
    return RECHECK["time"].row(within, round(found, 3), round(claimed * SPREAD, 3), why)


def share_of_time(model: Path, reference: Path, params: Params, sandbox: Kind) -> float:
    """Median time of a request as a share of the reference's, both asked in turn on this machine."""
    prompts = [r.prompt for r in fixed_sample(read_records(TEST, True), params.measure.prompts, params.seed)]
    settings = params.measure.model_copy(update={"threads": params.measure.threads[:1]})
    folders = {"package": model, "reference": reference}
    figures = side_by_side(folders, prompts, settings, sandbox)["figures"]
    one, other = (figures[name][str(settings.threads[0])] for name in ("package", "reference"))
    return one["request_ms_p50"] / other["request_ms_p50"]


def ask_exam(model: Path, requests: Path, params: Params, sandbox: Kind) -> list[Json]:
    """What the model says to each request of the hidden exam: id, answer, cut."""
    rows = read_jsonl(requests)
    prompts = [r["messages"] for r in rows]
    try:
        replies = dict(ask_singly(model, prompts, params.evaluate.max_new_tokens, sandbox))
    except Exception:  # what a model makes its runtime say may be a hidden request, and this is printed
        raise UserError("the package cannot be asked the hidden exam; nothing is sealed") from None
    return [{"id": r["id"], "answer": replies[i].text, "cut": replies[i].cut} for i, r in enumerate(rows)]


def recheck(exam: Path | None = None) -> Verdict:
    """Ask and judge what is in offered/, and write rechecked/.

    Args:
        exam: requests of the hidden exam, JSON lines; their answers go to rechecked/exam.jsonl, unscored.

    Raises:
        UserError: a file that is not the offered one, or a package that cannot be judged.
    """
    started, params, offer, sandbox = time.monotonic(), load_params(), read_offer(), chosen_sandbox()
    if (offer.name, offer.variant) != (params.package.name, params.package.variant):
        raise UserError(
            f"{OFFERED / MANIFEST} offers {offer.name} ({offer.variant}), and params.yaml names "
            f"{params.package.name} ({params.package.variant}); run `slm repro` and offer that"
        )
    with tempfile.TemporaryDirectory() as scratch, replacing(RECHECKED) as folder:
        folder.mkdir()
        unpack(OFFERED / f"{offer.name}.tar.gz", Path(scratch), LARGEST_ASSET_MB)
        model = Path(scratch) / offer.name / "model"
        verdict, shown = judge_package(model, None, params, load_task(), sandbox)
        heard: list[Prediction] = read_jsonl(HEARD_FILE)[1:]
        claimed = share = None
        if offer.reference:
            claimed = offer.reference.share
            unpack(OFFERED / "reference.tar.gz", Path(scratch), LARGEST_ASSET_MB)
            inspect(Path(scratch) / offer.reference.rung, sandbox)
            share = share_of_time(model, Path(scratch) / offer.reference.rung, params, sandbox)
        rows = [
            *verdict.gates,
            answers_as_claimed(read_jsonl(OFFERED / PREDICTIONS_FILE)[1:], heard, allowed_share()),
            time_as_claimed(claimed, share),
        ]
        verdict = replace(verdict, gates=rows)
        hashes: dict[str, str] = verdict.candidate
        head = {"rung": offer.variant, "test_sha256": sha256_file(TEST), **hashes}
        write_jsonl(folder / PREDICTIONS_FILE, [head, *heard])
        if exam:
            write_jsonl(folder / "exam.jsonl", ask_exam(model, exam, params, sandbox))
        findings = Findings(
            commit=git("rev-parse", "HEAD").strip(),
            passed=verdict.passed,
            **hashes,
            offered=offer.files,
            predictions_sha256=sha256_file(folder / PREDICTIONS_FILE),
            figures=shown.candidate,
            share=share,
            sandbox=sandbox,
            seconds=round(time.monotonic() - started, 1),
            gates=[GateResult(r[0], r[1], brief(r[4], 300)) for r in rows_of(verdict)[1:]],
        )
        write_json(folder / FINDINGS, asdict(findings))
    return verdict
