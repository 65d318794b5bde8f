"""Candidates compared with released models, by a project's own code and contract. Run by benchmarks/verdict.py, in that project's environment.

    PROJECT/.venv/bin/python benchmarks/comparisons.py PROJECT simulated     of known quality, made of the project's real answers
    PROJECT/.venv/bin/python benchmarks/comparisons.py PROJECT retrained     its student from several seeds, as `make seeds` left them

Prints one JSON object. Method and assumptions: docs/verdict-method.md of a project.
"""

import json
import sys
from itertools import permutations
from pathlib import Path

PROJECT = Path(sys.argv[1])
sys.path.insert(0, str(PROJECT))

if not (PROJECT / "predictions").is_dir():
    sys.exit(f"{PROJECT / 'predictions'}: no such folder; `make demo` makes it")

from slm.files import read_json, read_jsonl  # noqa: E402
from slm.task.definition import load_task  # noqa: E402
from slm.verdict.baseline import judge_baseline  # noqa: E402
from slm.verdict.calibration.proposal import complete_predictions  # noqa: E402
from slm.verdict.calibration.rates import Simulation, stated  # noqa: E402
from slm.verdict.calibration.simulation import read_answers  # noqa: E402
from slm.verdict.contract import load_contract  # noqa: E402

DROP = 0.05  # of a candidate that must be caught
TOTAL = 0.045  # lost by three releases together


def simulated() -> dict[str, float]:
    """False alarms and caught losses of all blocking comparisons together, at the project's limits; bounds are one-sided, 95%."""
    task, released = load_task(PROJECT / "task" / "task.yaml"), load_contract(PROJECT / "gates.yaml").released
    answers = read_answers(task, complete_predictions(PROJECT / "predictions", PROJECT / "task" / "test.jsonl"))
    size = answers.scores.shape[1]
    result = stated(Simulation(answers, released.slice_size), released, size, DROP, TOTAL)
    observed, *by_share = result["by_share"]
    after = result["false_alarm_after_releases"]
    # The released model is the best so far, or one of two releases is: whichever alarms more often.
    alarm = max(observed["false_alarm"], after["2"], key=lambda r: r["rate"])
    figures = {
        "examples": float(size),
        "models": float(len(answers.names)),
        "comparisons_simulated": float(observed["false_alarm"]["runs"]),
        "false_alarm_rate": alarm["rate"],
        "false_alarm_rate_at_most": alarm["high"],
        "true_drop_caught": observed["caught"]["rate"],
        "true_drop_caught_at_least": observed["caught"]["low"],
        "true_drop_caught_or_warned": observed["caught_or_warned"]["rate"],
    }
    for p in result["pairs"]:
        name = p["models"].replace(", ", "_")
        figures |= {f"{name}_differ": p["differ"], f"{name}_false_alarm_rate": p["false_alarm"]["rate"]}
        figures[f"{name}_true_drop_caught"] = p["caught"]["rate"]
    for s in by_share:
        name = f"{s['share']:.0%}_differ".replace("%", "_percent")
        figures[f"{name}_false_alarm_rate"] = s["false_alarm"]["rate"]
        figures[f"{name}_false_alarm_rate_at_most"] = s["false_alarm"]["high"]
        figures[f"{name}_true_drop_caught"] = s["caught"]["rate"]
        figures[f"{name}_true_drop_caught_at_least"] = s["caught"]["low"]
    figures["released_is_best_false_alarm_rate"] = observed["false_alarm"]["rate"]
    for n, r in after.items():
        figures |= {
            f"after_{n}_equal_releases_false_alarm_rate": r["rate"],
            f"after_{n}_equal_releases_false_alarm_rate_at_most": r["high"],
        }
    for name, r in result["small_drops"].items():
        figures |= {f"small_drops_caught_{name}": r["rate"], f"small_drops_caught_{name}_at_least": r["low"]}
    return figures


def retrained() -> dict[str, float]:
    """Each seed's student as the candidate against each other one as the released model, which none should lose to."""
    task, contract = load_task(PROJECT / "task" / "task.yaml"), load_contract(PROJECT / "gates.yaml")
    models = [read_jsonl(path)[1:] for path in sorted((PROJECT / "predictions" / "seeds").glob("*.jsonl"))]
    refused = [
        any(r.refuses for r in judge_baseline(contract, task, candidate, {"released": released, "best": released}))
        for candidate, released in permutations(models, 2)
    ]
    noise = read_json(PROJECT / "reports" / "seeds.json")
    scores = [s["score"] for s in noise["seeds"]]
    return {
        "retrained_models": float(len(models)),
        "retrained_comparisons": float(len(refused)),
        "retrained_refused": sum(refused) / len(refused),
        "retrained_lowest_score": min(scores),
        "retrained_highest_score": max(scores),
        "retrained_noise_of_training": noise["noise"]["of_training"],
        "retrained_noise_of_the_test_set": noise["noise"]["of_the_test_set"],
    }


if __name__ == "__main__":
    print(json.dumps({"simulated": simulated, "retrained": retrained}[sys.argv[2]]()))
