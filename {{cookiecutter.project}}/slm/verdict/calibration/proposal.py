"""How often is the verdict wrong? The gate's comparisons, tried on candidates whose true quality is known.

python -m slm.verdict.calibration.proposal                     from the models in predictions/ that answered the whole test set
python -m slm.verdict.calibration.proposal FILE FILE ...       from these, for example the predictions of several seeds

Equally good candidates that are refused are false alarms; candidates that are truly worse and pass are
misses. How such candidates are made of your own models' answers says slm/verdict/calibration/simulation.py.
Prints what the limits in gates.yaml cost, and proposes limits and a size of the test set; writes
reports/calibration.json. A minute or two on one core; the same files give the same numbers.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from slm.errors import UserError, stage
from slm.files import read_jsonl, write_json
from slm.tables import plain
from slm.task.definition import load_task
from slm.task.records import TASK
from slm.verdict.calibration.rates import ALARMS, CAUGHT, SMALL_LOSSES, SPLIT, calibrate
from slm.verdict.calibration.simulation import read_answers
from slm.verdict.contract import load_contract

CALIBRATION = Path("reports") / "calibration.json"


def shown(share: float | None) -> str:
    return "as observed" if share is None else f"{share:.0%}"


def alarm(r: dict[str, float]) -> str:
    return f"{r['rate']:.3f} (<= {r['high']:.3f})"


def catch(r: dict[str, float]) -> str:
    return f"{r['rate']:.3f} (>= {r['low']:.3f})"


def calibration_report(result: dict[str, Any]) -> str:
    drop, total = result["drop"], result["sum_of_small_drops"]
    alarms = "equal model refused"
    parts = [
        f"{result['examples']} examples, answers of {', '.join(result['models'])}; in brackets one-sided 95% bounds\n"
    ]

    def add(title: str, head: list[str], rows: list[list[str]]) -> None:
        parts.append(f"{title}\n\n{plain([head, *rows])}")

    add(
        "At the limits of gates.yaml",
        ["between", "answers differ", alarms, f"loss of {drop:g} caught"],
        [
            [p["models"], f"{p['differ']:.0%}", alarm(p["false_alarm"]), catch(p["caught"])]
            for p in result["pairs"]
        ],
    )
    add(
        "The same by the share of answers that differ, all pairs together",
        [
            "answers differ",
            alarms,
            "equal model warned of",
            f"loss of {drop:g} caught",
            "caught or warned of",
        ],
        [
            [
                shown(s["share"]),
                alarm(s["false_alarm"]),
                alarm(s["warned"]),
                catch(s["caught"]),
                catch(s["caught_or_warned"]),
            ]
            for s in result["by_share"]
        ],
    )
    small = result["small_drops"]
    add(
        f"Releases that add up: equally good ones, and {SMALL_LOSSES} that lose {total:g} together",
        ["history", alarms, "caught"],
        [
            [f"{n} equal releases before", alarm(r), "–"]
            for n, r in result["false_alarm_after_releases"].items()
        ]
        + [[f"lost {total:g}: the last refused", "–", catch(small["last"])]]
        + [[f"lost {total:g}: one of {SMALL_LOSSES} refused", "–", catch(small["by_the_last"])]]
        + [
            [
                f"lost {total:g}: one of {SMALL_LOSSES} refused or warned of",
                "–",
                catch(small["by_the_last_or_warned"]),
            ]
        ],
    )
    add(
        "What other error rates cost",
        [*SPLIT, alarms, "after 2 releases", f"loss of {drop:g} caught", f"{SMALL_LOSSES} losses caught"],
        [
            [f"{a[n]:g}" for n in SPLIT]
            + [
                alarm(a["false_alarm"]),
                alarm(a["false_alarm_two_releases"]),
                catch(a["caught"]),
                catch(a["small_drops_caught"]),
            ]
            for a in result["alphas"]
        ],
    )
    add(
        "What this test set can guard, at the error rates proposed below",
        [
            "loss",
            "caught",
            f"caught, over {SMALL_LOSSES} releases",
            "equal model warned of, as margin",
            "as best_margin",
        ],
        [
            [
                f"{m['drop']:g}",
                catch(m["caught"]),
                catch(m["small_drops_caught"]),
                alarm(m["equal_warned"]),
                alarm(m["equal_warned_best"]),
            ]
            for m in result["margins"]
        ],
    )
    shares = list(result["sizes"][0]["caught"])
    add(
        f"What another size of the test set would give: a loss of {drop:g} caught, where so many answers differ",
        ["examples", alarms, *(shown(None if s == "None" else float(s)) for s in shares)],
        [
            [str(s["examples"]), alarm(s["false_alarm"]), *(f"{s['caught'][k]['rate']:.3f}" for k in shares)]
            for s in result["sizes"]
        ],
    )
    lines = [
        f"  {name}: {'none of those tried' if value is None else f'{value:g}'}"
        for name, value in result["proposal"].items()
    ]
    parts.append(
        f"Proposed: at most {ALARMS:.0%} of equal models refused, at least {CAUGHT:.0%} of losses caught\n\n"
        + "\n".join(lines)
    )
    return "\n".join(parts) + "\n"


def complete_predictions(folder: Path, test: Path = TASK / "test.jsonl") -> list[Path]:
    """The predictions that answer every example of the test set."""
    ids = [json.loads(line)["id"] for line in test.read_text(encoding="utf-8").splitlines() if line]
    found = [
        p
        for p in sorted(folder.glob("*.jsonl"))
        if [r.get("id") for r in read_jsonl(p) if "answer" in r] == ids
    ]
    if len(found) < 2:
        raise UserError(
            f"{folder}: fewer than two models answered the whole test set; run `make repro`, or name prediction files"
        )
    return found


@stage
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="prediction files, at least two")
    paths = parser.parse_args().files or complete_predictions(Path("predictions"))
    missing = [p for p in paths if not p.exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; name prediction files that exist")
    result = calibrate(read_answers(load_task(), paths), load_contract().released)
    write_json(CALIBRATION, result)
    print(calibration_report(result))


if __name__ == "__main__":
    main()
