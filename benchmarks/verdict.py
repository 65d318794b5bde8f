"""How often is the verdict wrong? Candidates of known quality, made of a project's real answers, judged by its contract.

    make bench-verdict    (runs in the demo's environment, on the demo's predictions: make demo first)

Writes build/bench/verdict.json and prints the same as a table. `python -m slm.calibrate` in a project says more, and proposes limits.
Method and assumptions: docs/verdict-method.md.
"""

import json
import sys
from pathlib import Path

PROJECT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "build" / "my-slm"
sys.path.insert(0, str(PROJECT))

if not (PROJECT / "predictions").is_dir():
    sys.exit(f"{PROJECT / 'predictions'}: no such folder; `make demo` makes it")

from slm.calibrate import whole  # noqa: E402
from slm.calibration import Simulation, stated  # noqa: E402
from slm.contract import load_contract  # noqa: E402
from slm.simulation import read_answers  # noqa: E402
from slm.task import load_task  # noqa: E402

OUTPUT = Path(__file__).parent.parent / "build" / "bench" / "verdict.json"
DROP = 0.05  # of a candidate that must be caught
TOTAL = 0.045  # lost by three releases together


def simulated() -> dict[str, float]:
    """False alarms and caught losses of all blocking comparisons together, at the project's limits; bounds are one-sided, 95%."""
    task, released = load_task(PROJECT / "task" / "task.yaml"), load_contract(PROJECT / "gates.yaml").released
    answers = read_answers(task, whole(PROJECT / "predictions", PROJECT / "task" / "test.jsonl"))
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


# What the figures come from, one function a part: regressions that are planted in real models go here.
PARTS = (simulated,)


def main() -> None:
    figures = {name: value for part in PARTS for name, value in part().items()}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"figures": figures}, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:56s}{value:10.3f}")


if __name__ == "__main__":
    main()
