"""How often is the verdict wrong? Try the gate's comparisons on candidates whose true quality is known.

slm calibrate                     from the models in predictions/ that answered the whole test set
slm calibrate FILE FILE ...       from these, for example the predictions of several seeds

An equally good candidate that is refused is a false alarm. A worse candidate that passes is a miss.
slm/verdict/calibration/simulation.py makes such candidates from your own models' answers. The command prints
what the limits in gates.yaml cost, and proposes limits and a size of the test set. It writes
reports/calibration.json. It takes a minute or two on one core. The same files give the same numbers.
"""

from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files import read_jsonl, write_json
from slm.tables import plain
from slm.task.definition import load_task
from slm.task.records import TASK, read_records
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


Rates = dict[str, Any]  # of `calibrate`
EQUAL_REFUSED = "equal model refused"


def calibration_report(result: Rates) -> str:
    names = ", ".join(result["models"])
    tables = (limits_table, shares_table, releases_table, errors_table, margins_table, sizes_table)
    parts = [f"{result['examples']} examples, answers of {names}; in brackets one-sided 95% bounds\n"]
    for table in tables:
        title, *rows = table(result)
        parts.append(f"{title}\n\n{plain(rows)}")
    lines = [
        f"  {name}: {'none of those tried' if value is None else f'{value:g}'}"
        for name, value in result["proposal"].items()
    ]
    aims = f"at most {ALARMS:.0%} of equal models refused, at least {CAUGHT:.0%} of losses caught"
    return "\n".join([*parts, f"Proposed: {aims}\n", *lines]) + "\n"


# Each table: its title, its header, its rows.
def limits_table(result: Rates) -> list[Any]:
    rows = [
        [p["models"], f"{p['differ']:.0%}", alarm(p["false_alarm"]), catch(p["caught"])]
        for p in result["pairs"]
    ]
    head = ["between", "answers differ", EQUAL_REFUSED, f"loss of {result['drop']:g} caught"]
    return ["At the limits of gates.yaml", head, *rows]


def shares_table(result: Rates) -> list[Any]:
    head = ["answers differ", EQUAL_REFUSED, "equal model warned of"]
    head += [f"loss of {result['drop']:g} caught", "caught or warned of"]
    rows = [
        [
            shown(s["share"]),
            *map(alarm, (s["false_alarm"], s["warned"])),
            *map(catch, (s["caught"], s["caught_or_warned"])),
        ]
        for s in result["by_share"]
    ]
    return ["The same by the share of answers that differ, all pairs together", head, *rows]


def releases_table(result: Rates) -> list[Any]:
    total, small = f"{result['sum_of_small_drops']:g}", result["small_drops"]
    rows = [
        [f"{n} equal releases before", alarm(r), "–"] for n, r in result["false_alarm_after_releases"].items()
    ]
    lost = {
        "the last refused": small["last"],
        f"one of {SMALL_LOSSES} refused": small["by_the_last"],
        f"one of {SMALL_LOSSES} refused or warned of": small["by_the_last_or_warned"],
    }
    rows += [[f"lost {total}: {what}", "–", catch(r)] for what, r in lost.items()]
    title = f"Releases that add up: equally good ones, and {SMALL_LOSSES} that lose {total} together"
    return [title, ["history", EQUAL_REFUSED, "caught"], *rows]


def errors_table(result: Rates) -> list[Any]:
    head = [*SPLIT, EQUAL_REFUSED, "after 2 releases"]
    head += [f"loss of {result['drop']:g} caught", f"{SMALL_LOSSES} losses caught"]
    rows = [
        [f"{a[n]:g}" for n in SPLIT]
        + [*map(alarm, (a["false_alarm"], a["false_alarm_two_releases"]))]
        + [*map(catch, (a["caught"], a["small_drops_caught"]))]
        for a in result["alphas"]
    ]
    return ["What other error rates cost", head, *rows]


def margins_table(result: Rates) -> list[Any]:
    head = ["loss", "caught", f"caught, over {SMALL_LOSSES} releases"]
    head += ["equal model warned of, as margin", "as best_margin"]
    rows = [
        [
            f"{m['drop']:g}",
            *map(catch, (m["caught"], m["small_drops_caught"])),
            *map(alarm, (m["equal_warned"], m["equal_warned_best"])),
        ]
        for m in result["margins"]
    ]
    return ["What this test set can guard, at the error rates proposed below", head, *rows]


def sizes_table(result: Rates) -> list[Any]:
    shares = list(result["sizes"][0]["caught"])
    head = ["examples", EQUAL_REFUSED, *(shown(None if s == "None" else float(s)) for s in shares)]
    rows = [
        [str(s["examples"]), alarm(s["false_alarm"]), *(f"{s['caught'][k]['rate']:.3f}" for k in shares)]
        for s in result["sizes"]
    ]
    title = f"What another size of the test set would give: a loss of {result['drop']:g} caught, "
    return [f"{title}where so many answers differ", head, *rows]


def complete_predictions(folder: Path, test: Path = TASK / "test.jsonl") -> list[Path]:
    """The predictions that answer every example of the test set."""
    ids = [r.id for r in read_records(test, answered=True)]
    found = [
        p
        for p in sorted(folder.glob("*.jsonl"))
        if [r.get("id") for r in read_jsonl(p) if "answer" in r] == ids
    ]
    if len(found) < 2:
        raise UserError(
            f"{folder}: fewer than two models answered the whole test set; run `slm repro`, or name "
            "prediction files"
        )
    return found


def propose_limits(files: list[Path]) -> None:
    """Print and write what the limits cost, and limits to match.

    Args:
        files: predictions of at least two models; none: those of this checkout that answer the whole test
            set.
    """
    paths = files or complete_predictions(Path("predictions"))
    missing = [p for p in paths if not p.exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; name prediction files that exist")
    result = calibrate(read_answers(load_task(), paths), load_contract().released)
    write_json(CALIBRATION, result)
    print(calibration_report(result))
