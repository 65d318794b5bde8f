"""How often is the verdict wrong? The gate's comparisons, tried on candidates whose true quality is known.

python -m slm.calibrate                     from the models in predictions/ that answered the whole test set
python -m slm.calibrate FILE FILE ...       from these, for example the predictions of several seeds

Equally good candidates that are refused are false alarms; candidates that are truly worse and pass are misses. How such candidates are
made of your own models' answers says slm/simulation.py. Prints what the limits in gates.yaml cost, and proposes limits and a size of the test
set; writes reports/calibration.json. A minute or two on one core; the same files give the same numbers.
"""

import argparse
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from slm.contract import Released, load_contract
from slm.errors import UserError, stage
from slm.files import read_jsonl, write_json
from slm.ladder import plain
from slm.records import TASK
from slm.simulation import Answers, Draw, Evidence, decline, evidence, history, joined, pair, read_answers
from slm.task import load_task

OUTPUT = Path("reports") / "calibration.json"
RUNS = 6000  # simulated comparisons behind each stated rate, over all pairs of models
FEWER = 2000  # behind each line of the tables of proposals
SEED = 0
CELLS = 2_000_000  # answers held at once
SHARES = (None, 0.10, 0.15, 0.20, 0.25)  # of answers that differ; None: as between the real models
SIZES = (200, 400, 600, 1000, 1500, 2000)
SPLIT = {"alpha": 0.5, "best_alpha": 0.3, "slice_alpha": 0.2}  # of the error rate of all comparisons together
TOTALS = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10)
DROPS = tuple(round(0.02 + 0.005 * i, 3) for i in range(17))
ALARMS, CAUGHT = 0.05, 0.90  # what the proposals keep to
STEPS = 3  # releases over which a small loss adds up

Table = list[dict[str, Any]]


def rate(events: NDArray[np.bool_]) -> dict[str, float]:
    """A rate with its one-sided 95% bounds (Clopper-Pearson)."""
    count, runs = int(events.sum()), len(events)
    low, high = proportion_confint(count, runs, alpha=0.10, method="beta")
    return {"rate": count / runs, "low": float(low), "high": float(high), "runs": runs}


class Simulation:
    """Evidence about candidates of known quality, drawn in blocks that fit into memory."""

    def __init__(self, answers: Answers, smallest: int):
        self.answers, self.smallest = answers, smallest
        self.rng = np.random.default_rng(SEED)
        scores = answers.scores
        self.pairs = {
            f"{answers.names[a]}, {answers.names[b]}": scores[[a, b]]
            for a, b in combinations(range(len(scores)), 2)
            if (scores[a] != scores[b]).any()
        }
        if not self.pairs:
            raise UserError(f"{', '.join(answers.names)}: give at least two models that answer differently, for example two seeds")

    def _blocks(self, size: int, runs: int, draw: Callable[[int], Draw]) -> Evidence:
        block = max(1, CELLS // size)
        return joined([evidence(draw(min(block, runs - at)), self.answers.members, self.smallest) for at in range(0, runs, block)])

    def by_pair(self, size: int, runs: int, drop: float = 0.0, share: float | None = None) -> dict[str, Evidence]:
        each = -(-runs // len(self.pairs))
        return {
            name: self._blocks(size, each, lambda n, s=scores: pair(s, size, n, self.rng, drop, share))
            for name, scores in self.pairs.items()
        }

    def candidates(self, size: int, runs: int, drop: float = 0.0, share: float | None = None) -> Evidence:
        return joined(list(self.by_pair(size, runs, drop, share).values()))

    def after(self, releases: int, size: int, runs: int) -> Evidence:
        return self._blocks(size, runs, lambda n: history(self.answers.scores, releases, size, n, self.rng))

    def declines(self, step: float, size: int, runs: int) -> list[Evidence]:
        block = max(1, CELLS // size)
        parts = [
            [
                evidence(d, self.answers.members, self.smallest)
                for d in decline(self.answers.scores, step, STEPS, size, min(block, runs - at), self.rng)
            ]
            for at in range(0, runs, block)
        ]
        return [joined(list(releases)) for releases in zip(*parts, strict=True)]


def stated(simulation: Simulation, released: Released, size: int, drop: float, total: float) -> dict[str, Any]:
    """Rates at the limits of the contract.

    Args:
        drop: what a worse candidate has lost.
        total: what three releases have lost together.
    """
    shares = SHARES if simulation.answers.binary else (None,)
    equal = simulation.by_pair(size, RUNS)
    worse = simulation.by_pair(size, RUNS, drop)
    pairs = [
        {
            "models": name,
            "differ": float((simulation.pairs[name][0] != simulation.pairs[name][1]).mean()),
            "false_alarm": rate(equal[name].refused(released)),
            "caught": rate(worse[name].refused(released)),
        }
        for name in simulation.pairs
    ]
    by_share = []
    for share in shares:
        same = joined(list(equal.values())) if share is None else simulation.candidates(size, RUNS, 0.0, share)
        less = joined(list(worse.values())) if share is None else simulation.candidates(size, RUNS, drop, share)
        by_share.append(
            {
                "share": share,
                "false_alarm": rate(same.refused(released)),
                "warned": rate(same.warned(released)),
                "caught": rate(less.refused(released)),
                "caught_or_warned": rate(less.refused(released) | less.warned(released)),
            }
        )
    releases = {n: simulation.after(n, size, RUNS) for n in (2, 5)}
    falling = simulation.declines(total / STEPS, size, RUNS)
    refused = np.array([e.refused(released) for e in falling])
    seen = refused | np.array([e.warned(released) for e in falling])
    return {
        "examples": size,
        "models": simulation.answers.names,
        "drop": drop,
        "sum_of_small_drops": total,
        "pairs": pairs,
        "by_share": by_share,
        "false_alarm_after_releases": {str(n): rate(e.refused(released)) for n, e in releases.items()},
        "small_drops": {
            "last": rate(refused[-1]),
            "by_the_last": rate(refused.any(axis=0)),
            "by_the_last_or_warned": rate(seen.any(axis=0)),
        },
    }


def split(released: Released, total: float) -> Released:
    return released.model_copy(update={name: round(total * part, 4) for name, part in SPLIT.items()})


def proposals(simulation: Simulation, released: Released, size: int, drop: float, total: float) -> dict[str, Any]:
    """Tables of what other limits and other sizes would cost, and the choice that they lead to."""
    one, two = simulation.candidates(size, RUNS), simulation.after(2, size, RUNS)
    worse, falling = simulation.candidates(size, RUNS, drop), simulation.declines(total / STEPS, size, FEWER)
    alphas: Table = []
    for error in TOTALS:
        r = split(released, error)
        alphas.append(
            {
                **{name: getattr(r, name) for name in SPLIT},
                "false_alarm": rate(one.refused(r)),
                "false_alarm_two_releases": rate(two.refused(r)),
                "caught": rate(worse.refused(r)),
                "small_drops_caught": rate(np.any([e.refused(r) for e in falling], axis=0)),
            }
        )
    fit = [a for a in alphas if max(a["false_alarm"]["high"], a["false_alarm_two_releases"]["high"]) <= ALARMS] or alphas[:1]
    chosen = released.model_copy(update={name: fit[-1][name] for name in SPLIT})

    margins: Table = []
    for lost in DROPS:
        if lost >= simulation.answers.scores.mean(axis=1).min():
            break
        falling = simulation.declines(lost / STEPS, size, FEWER)
        margins.append(
            {
                "drop": lost,
                "caught": rate(simulation.candidates(size, FEWER, lost).refused(chosen)),
                "small_drops_caught": rate(np.any([e.refused(chosen) for e in falling], axis=0)),
                "equal_warned": rate(one.low < -lost),
                "equal_warned_best": rate(two.low_best < -lost),
            }
        )
        if min(margins[-1]["caught"]["rate"], margins[-1]["small_drops_caught"]["rate"]) >= CAUGHT:
            break

    shares = SHARES if simulation.answers.binary else (None,)
    sizes: Table = []
    for examples in sorted({*SIZES, size}):
        caught = {str(s): rate(simulation.candidates(examples, FEWER, drop, s).refused(chosen)) for s in shares}
        sizes.append({"examples": examples, "false_alarm": rate(simulation.candidates(examples, FEWER).refused(chosen)), "caught": caught})

    def first(rows: Table, name: str, value: Callable[[dict[str, Any]], float]) -> Any:
        return next((row[name] for row in rows if value(row) >= CAUGHT), None)

    choice = {
        **{name: getattr(chosen, name) for name in SPLIT},
        "margin": first(margins, "drop", lambda r: r["caught"]["rate"]),
        "best_margin": first(margins, "drop", lambda r: r["small_drops_caught"]["rate"]),
        "test_examples": first(sizes, "examples", lambda r: r["caught"]["None"]["rate"]),
    }
    return {"alphas": alphas, "margins": margins, "sizes": sizes, "proposal": choice}


def calibrate(answers: Answers, released: Released, drop: float | None = None, total: float | None = None) -> dict[str, Any]:
    """All of it; `drop` and `total` are the contract's margins where not given."""
    drop, total = drop or released.margin, total or released.best_margin
    weakest = float(answers.scores.mean(axis=1).min())
    if weakest <= max(drop, total):
        raise UserError(f"{answers.names}: a model with a score of {weakest:.3f} has no {max(drop, total)} to lose; give models that work")
    size, simulation = answers.scores.shape[1], Simulation(answers, released.slice_size)
    return stated(simulation, released, size, drop, total) | proposals(simulation, released, size, drop, total)


def shown(share: float | None) -> str:
    return "as observed" if share is None else f"{share:.0%}"


def alarm(r: dict[str, float]) -> str:
    return f"{r['rate']:.3f} (<= {r['high']:.3f})"


def catch(r: dict[str, float]) -> str:
    return f"{r['rate']:.3f} (>= {r['low']:.3f})"


def report(result: dict[str, Any]) -> str:
    drop, total = result["drop"], result["sum_of_small_drops"]
    alarms = "equal model refused"
    parts = [f"{result['examples']} examples, answers of {', '.join(result['models'])}; in brackets one-sided 95% bounds\n"]

    def add(title: str, head: list[str], rows: list[list[str]]) -> None:
        parts.append(f"{title}\n\n{plain([head, *rows])}")

    add(
        "At the limits of gates.yaml",
        ["between", "answers differ", alarms, f"loss of {drop:g} caught"],
        [[p["models"], f"{p['differ']:.0%}", alarm(p["false_alarm"]), catch(p["caught"])] for p in result["pairs"]],
    )
    add(
        "The same by the share of answers that differ, all pairs together",
        ["answers differ", alarms, "equal model warned of", f"loss of {drop:g} caught", "caught or warned of"],
        [
            [shown(s["share"]), alarm(s["false_alarm"]), alarm(s["warned"]), catch(s["caught"]), catch(s["caught_or_warned"])]
            for s in result["by_share"]
        ],
    )
    small = result["small_drops"]
    add(
        f"Releases that add up: equally good ones, and {STEPS} that lose {total:g} together",
        ["history", alarms, "caught"],
        [[f"{n} equal releases before", alarm(r), "–"] for n, r in result["false_alarm_after_releases"].items()]
        + [[f"lost {total:g}: the last refused", "–", catch(small["last"])]]
        + [[f"lost {total:g}: one of {STEPS} refused", "–", catch(small["by_the_last"])]]
        + [[f"lost {total:g}: one of {STEPS} refused or warned of", "–", catch(small["by_the_last_or_warned"])]],
    )
    add(
        "What other error rates cost",
        [*SPLIT, alarms, "after 2 releases", f"loss of {drop:g} caught", f"{STEPS} losses caught"],
        [
            [f"{a[n]:g}" for n in SPLIT]
            + [alarm(a["false_alarm"]), alarm(a["false_alarm_two_releases"]), catch(a["caught"]), catch(a["small_drops_caught"])]
            for a in result["alphas"]
        ],
    )
    add(
        "What this test set can guard, at the error rates proposed below",
        ["loss", "caught", f"caught, over {STEPS} releases", "equal model warned of, as margin", "as best_margin"],
        [
            [f"{m['drop']:g}", catch(m["caught"]), catch(m["small_drops_caught"]), alarm(m["equal_warned"]), alarm(m["equal_warned_best"])]
            for m in result["margins"]
        ],
    )
    shares = list(result["sizes"][0]["caught"])
    add(
        f"What another size of the test set would give: a loss of {drop:g} caught, where so many answers differ",
        ["examples", alarms, *(shown(None if s == "None" else float(s)) for s in shares)],
        [[str(s["examples"]), alarm(s["false_alarm"]), *(f"{s['caught'][k]['rate']:.3f}" for k in shares)] for s in result["sizes"]],
    )
    lines = [f"  {name}: {'none of those tried' if value is None else f'{value:g}'}" for name, value in result["proposal"].items()]
    parts.append(f"Proposed: at most {ALARMS:.0%} of equal models refused, at least {CAUGHT:.0%} of losses caught\n\n" + "\n".join(lines))
    return "\n".join(parts) + "\n"


def whole(folder: Path) -> list[Path]:
    """The predictions that answer every example of the test set."""
    ids = [json.loads(line)["id"] for line in (TASK / "test.jsonl").read_text(encoding="utf-8").splitlines() if line]
    found = [p for p in sorted(folder.glob("*.jsonl")) if [r.get("id") for r in read_jsonl(p) if "answer" in r] == ids]
    if len(found) < 2:
        raise UserError(f"{folder}: fewer than two models answered the whole test set; run `make repro`, or name prediction files")
    return found


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="prediction files, at least two")
    paths = parser.parse_args().files or whole(Path("predictions"))
    missing = [p for p in paths if not p.exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; name prediction files that exist")
    result = calibrate(read_answers(load_task(), paths), load_contract().released)
    write_json(OUTPUT, result)
    print(report(result))


if __name__ == "__main__":
    main()
