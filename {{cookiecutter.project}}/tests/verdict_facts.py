"""Facts of a checkout whose seven rungs were made as the stages make them, for tests that plant a fault in
one of them.
"""

from dataclasses import replace
from datetime import date
from typing import Any

from slm.evaluation.ladder import COST_FIGURES, RUNGS, build_ladder
from slm.task.definition import Task
from slm.task.metrics import summarise
from slm.task.records import Record, prediction
from slm.verdict.contract import Contract, Gate, Released
from slm.verdict.facts import Facts, PackageFacts

RIGHT, WRONG = '{"name":"a","arguments":{}}', '{"name":"b","arguments":{}}'
RECORDS = [
    Record(str(i), [{"role": "user", "content": f"p{i}"}, {"role": "assistant", "content": RIGHT}], ["plain"])
    for i in range(4)
]
CONTRACT = Contract(
    gates=[Gate(name="score", severity="block", metric="shipped.score_low", at_least=0.1)],
    released=Released(
        margin=0.05, best_margin=0.045, time=1.15, memory=1.15, weights=1.02, slice_size=30, slice_alpha=0.01
    ),
)


def honest_facts(task: Task, **changes: Any) -> Facts:
    """Each rung has one wrong answer of four; nothing is released."""
    rows = [prediction(r, RIGHT if i else WRONG, False) for i, r in enumerate(RECORDS)]
    hashes = {"weights_sha256": "w", "folder_sha256": "f", "test_sha256": "t"}
    quality = {name: {"rung": name, **hashes, **summarise(task, rows)} for name in RUNGS}
    measured = {
        "folder_sha256": "f",
        "weights_mb": 1.0,
        "by_threads": {"1": dict.fromkeys(COST_FIGURES, 2.0)},
    }
    cost = {"threads": 1, "machine": {}, "rungs": {"int4": measured}, "ratios": {"int4": [1.0]}}
    facts = Facts(
        contract=CONTRACT,
        contract_sha256="c",
        waivers=[],
        task=task,
        shipped="int4",
        endpoint_teacher=False,
        licences={},
        revision=None,
        ladder=build_ladder(quality, cost, "t", "quick", dict.fromkeys(RUNGS, 1.0)),
        cost=cost,
        quality=quality,
        predictions={name: [{"rung": name, **hashes}, *(dict(row) for row in rows)] for name in RUNGS},
        test_ids=[r.id for r in RECORDS],
        test_sha256="t",
        records=RECORDS,
        package=PackageFacts(folder_sha256="f", weights_sha256="w", mb=1.0, wrong_documents=None),
        data=None,
        synthetic=None,
        released=None,
        baselines={"released": None, "best": None},
        released_train=None,
        changed=[],
        weakened=[],
        today=date(2030, 1, 1),
    )
    return replace(facts, **changes)
