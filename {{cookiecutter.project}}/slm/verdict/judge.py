"""The verdict on a package whose makers are not trusted: nothing of theirs is believed but the package's
bytes.

    slm judge candidate --base COMMIT --head COMMIT      what verdict.yml runs
    slm judge                                            the package in dist/, by your own checkout

Code, contract, waivers, scorer and test set are those of this checkout (in the workflow, the default
branch's). The package is looked at, asked the whole test set, and measured beside the released one. Of the
change itself only file names and texts are read. Writes verdict/verdict.json, verdict/comment.md and
verdict/predictions.jsonl; `slm judge` exits 1 if the candidate is refused. The variable PROBLEM may say why
there is no package.
"""

import os
import re
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

from ruamel.yaml.error import YAMLError

from slm.config.params import Params, load_params
from slm.errors import UserError, brief
from slm.evaluation.cost import CostFacts, machine, side_by_side
from slm.files import (
    Json,
    dvc_md5,
    folder_sha256,
    read_json,
    sha256_file,
    weights_mb,
    weights_sha256,
    write_json,
    write_jsonl,
    write_text,
)
from slm.git import file_at, merge_of
from slm.inference.asking import ask_singly
from slm.inference.sandbox import Kind, chosen_sandbox
from slm.progress import track
from slm.task.definition import Task, load_task
from slm.task.metrics import summarise
from slm.task.records import TASK, Prediction, Record, fixed_sample, prediction, read_records
from slm.verdict.baseline import blame, flips, judge_baseline
from slm.verdict.changes import describe, parameters_diff
from slm.verdict.comment import comment
from slm.verdict.contract import CONTRACT, load_contract
from slm.verdict.cost import judge_cost, judge_rounds
from slm.verdict.foreign_yaml import foreign_yaml
from slm.verdict.inspection import inspect
from slm.verdict.judged import Changes, Figures, Flip, Judged, Shown
from slm.verdict.limits import judge_metric
from slm.verdict.registry import BYTES_OF_COMMIT, MODEL, PACKAGE
from slm.verdict.released import RELEASED, model_of, predictions_of, test_set_of
from slm.verdict.rows import Row, Verdict, headline
from slm.verdict.waivers import load_waivers, waive

JUDGED = Path("verdict")
HEARD_FILE = JUDGED / "predictions.jsonl"
TEST, VALIDATION = TASK / "test.jsonl", TASK / "validation.jsonl"
VALIDATION_EXAMPLES = 60  # of the validation data
LONGEST_WHY, LONGEST_VALUE = 600, 200  # characters
# What the ladder has and a package has not.
NOT_IN_A_PACKAGE = dict.fromkeys(
    ("teacher", "base", "distilled", "finetuned", "onnx", "int8", "int4"),
    "a package has no other rung; the default branch judges this gate once it has made all rungs",
) | dict.fromkeys(
    ("data", "package"),
    "the judge takes only the model's bytes; the checks of the change and the default branch judge this gate",
)


def ask_records(
    folder: Path, records: list[Record], params: Params, what: str, sandbox: Kind | None = None
) -> list[Prediction]:
    """The answers of a model, one by one, as a user asks; a stranger's model is asked in a sandbox."""
    answers = ask_singly(folder, [r.prompt for r in records], params.evaluate.max_new_tokens, sandbox)
    given = {i: reply for i, reply in track(answers, what, total=len(records))}
    return [prediction(r, given[i].text, given[i].cut) for i, r in enumerate(records)]


def baselines(params: Params) -> dict[str, list[Prediction] | None]:
    """Predictions of the released models on this test set; one that was asked another set is asked again."""
    rows: dict[str, list[Prediction] | None] = {}
    for name, entry in ((n, read_json(RELEASED).get(n)) for n in ("released", "best")):
        if entry is None or test_set_of(entry) == sha256_file(TEST):
            rows[name] = predictions_of(entry)
        else:
            rows[name] = ask_records(model_of(entry), read_records(TEST, True), params, name)
    return rows


def costs(
    folder: Path, released: Path | None, params: Params, sandbox: Kind
) -> tuple[dict[str, CostFacts], Row]:
    """Figures of the candidate and of the released model, and whether their rounds agree."""
    prompts = [r.prompt for r in fixed_sample(read_records(TEST, True), params.measure.prompts, params.seed)]
    folders = {"candidate": folder} | ({"released": released} if released else {})
    settings = params.measure.model_copy(update={"threads": params.measure.threads[:1]})
    measured = side_by_side(folders, prompts, settings, sandbox)
    threads = str(params.measure.threads[0])
    return {
        n: measured["figures"][n][threads] | {"weights_mb": weights_mb(f)} for n, f in folders.items()
    }, judge_rounds(measured)


def of_commit(folder: Path, base: str, head: str, shipped: str) -> Row:
    """Whether dvc.lock of the merged change names these bytes. A change that brings a lock of its own must
    bring the bytes that it names; else the run makes them again, and there is nothing to hold them against.
    """
    written = file_at(merge_of(base, head).tree, "dvc.lock") or ""
    try:
        lock = foreign_yaml(written)
        named = next(
            o["md5"]
            for o in lock["stages"]["convert@onnx" if shipped == "onnx" else f"quantize@{shipped}"]["outs"]
            if o["path"] == f"models/{shipped}"
        )
    except (YAMLError, KeyError, TypeError, StopIteration):
        named = None
    found, sha256 = dvc_md5(folder), folder_sha256(folder)
    row = BYTES_OF_COMMIT.row(
        named == found, found[:12], str(named)[:12], f"SHA-256 {sha256}: dvc.lock names it"
    )
    if row.passed:
        return row
    if written == file_at(base, "dvc.lock"):
        why = "its run made them again, and main makes them once more and judges in full"
        return replace(row, why=f"SHA-256 {sha256}: dvc.lock names other bytes; {why}")
    why = (
        "this change has a dvc.lock of its own, which names other bytes; commit the dvc.lock that its run "
        "made (artifact `lock`), or `slm push` the bytes that it names"
    )
    return replace(row, severity="block", why=f"SHA-256 {sha256}: {why}")


def judge_package(
    folder: Path, change: tuple[str, str] | None, params: Params, task: Task, sandbox: Kind
) -> tuple[Verdict, Shown]:
    """The verdict, and what the comment shows beside it.

    Args:
        change: commit of the default branch, and the one that is judged; None: the package of a checkout.
    """
    contract, shipped = load_contract(), params.package.variant
    waivers = load_waivers(contract)
    inspect(folder, sandbox)
    entry = read_json(RELEASED).get("released")
    predictions = ask_records(folder, read_records(TEST, True), params, "candidate", sandbox)
    write_jsonl(HEARD_FILE, [{"rung": shipped, "test_sha256": sha256_file(TEST)}, *predictions])
    quality, known = summarise(task, predictions), baselines(params)
    cost, rounds_agree = costs(folder, model_of(entry) if entry else None, params, sandbox)

    ladder = {"rungs": [{"name": shipped, **quality, **cost["candidate"]}]}
    rows = [
        judge_metric(gate, ladder, shipped, {n: why for n, why in NOT_IN_A_PACKAGE.items() if n != shipped})
        for gate in contract.gates
    ]
    rows += judge_baseline(contract, task, predictions, known)
    rows += [*judge_cost(contract, cost["candidate"], cost.get("released")), rounds_agree]
    tree = merge_of(*change).tree if change else None
    rows = blame(rows, parameters_diff(entry["revision"], tree) if entry else [])
    if change:
        rows.append(of_commit(folder, *change, shipped))
    rows = waive(rows, waivers, datetime.now(UTC).date())
    hashes = {"weights_sha256": weights_sha256(folder), "folder_sha256": folder_sha256(folder)}
    changed = flips(task, known["released"] or [], predictions)
    shown = Shown(
        processor=machine()["processor"],
        candidate=figures_of(quality, cost["candidate"]),
        released=figures_of(summarise(task, known["released"]), cost["released"])
        if known["released"]
        else None,
        won=[r["id"] for r in changed if r["change"] > 0],
        lost=[r["id"] for r in changed if r["change"] < 0],
        **(shown_flips(folder, model_of(entry), params, task, sandbox) if entry else {}),
    )
    contract_sha256 = sha256_file(CONTRACT)
    return Verdict(rows, hashes, entry, contract_sha256=contract_sha256, sandbox=sandbox), shown


def figures_of(quality: Json, cost: CostFacts) -> Figures:
    values: Json = {f.name: (cost if f.name in cost else quality).get(f.name) for f in fields(Figures)}
    return Figures(**values)


def shown_flips(folder: Path, released: Path, params: Params, task: Task, sandbox: Kind) -> Json:
    """Answers that a person looks at. They come from the validation data: whoever saw those of the test set
    would mend a model by them.
    """
    records = fixed_sample(read_records(VALIDATION, True), VALIDATION_EXAMPLES, params.seed)
    before = ask_records(released, records, params, "released, validation data")
    after = ask_records(folder, records, params, "candidate, validation data", sandbox)
    rows = [
        Flip(
            prompt=brief(row["prompt"], LONGEST_VALUE),
            expected=brief(row["expected"], LONGEST_VALUE),
            before=brief(row["before"], LONGEST_VALUE),
            answer=brief(row["answer"], LONGEST_VALUE),
            change=row["change"],
        )
        for row in flips(task, before, after)
    ]
    return {"sample": len(records), "flips": rows}


def refused_verdict(why: str) -> Verdict:
    """A verdict without a model to ask."""
    return Verdict([PACKAGE.row(False, None, None, brief(why, LONGEST_WHY))], {"weights_sha256": None})


def unchanged() -> Verdict:
    why = "no file that the pipeline reads has changed: the model stays as it is"
    return Verdict([MODEL.row(None, None, None, why)], {"weights_sha256": None})


def check_commit(text: str) -> None:
    if not re.fullmatch("[0-9a-f]{40}", text):
        raise UserError(f"{text[:60]!r} is not a commit hash; give all 40 digits")


def judge_change(package: Path | None, base: str | None, head: str | None) -> bool:
    """Judge, write the verdict's files, print the comment; whether the candidate passed.

    Args:
        package: folder of a model, which may be absent if the change touches no model; None: the one in
            dist/.
        base: commit of the default branch.
        head: commit that is judged.
    """
    for revision in filter(None, (base, head)):
        check_commit(revision)
    params, task = load_params(), load_task()
    changes = describe(base, head) if base and head else None
    if package is None:
        package = Path("dist") / params.package.name / "model"
        if not package.exists():
            raise UserError(f"{package}: no package yet; run `slm repro` first, or name a folder")
    shown = None
    if changes and not changes["model"]:
        result = unchanged()
    elif not package.exists():
        result = refused_verdict(
            os.environ.get("PROBLEM")
            or "this change touches the model, and its checks made no package: see their run"
        )
    else:
        sandbox = chosen_sandbox()  # without one there is no verdict
        try:
            change = (base, head) if base and head else None
            result, shown = judge_package(package, change, params, task, sandbox)
        except UserError as error:
            result = refused_verdict(str(error))
        except Exception as error:  # a package that breaks the runtime is a bad package, not a bad judge
            result = refused_verdict(f"the package cannot be judged: {type(error).__name__}: {error}")
    result = replace(
        result,
        candidate={"revision": head, **result.candidate},
        weakened=[brief(line, LONGEST_WHY) for line in changes["weakened"]] if changes else [],
    )
    rows = [[brief(text, LONGEST_VALUE) for text in row] for row in changes["params"]] if changes else []
    touched = Changes(bool(changes["model"]), changes["judge"], rows) if changes else None
    judged = Judged(result, touched, shown)
    write_json(JUDGED / "verdict.json", judged.to_json())
    write_text(JUDGED / "comment.md", comment(judged))
    print((JUDGED / "comment.md").read_text(encoding="utf-8"))
    print(headline(result))
    return result.passed
