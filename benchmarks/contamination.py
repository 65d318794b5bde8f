"""Does a test request that somebody hides in the training data get past the check? And how much honest data is named?

    python -m benchmarks.contamination [NAME=TRAIN,HELD_OUT ...]       (in the demo's environment: make demo first)

Reads the default task and the examples of this template. NAME=TRAIN,HELD_OUT adds a public data set, each file with one request a
line. Writes build/bench/contamination.json and prints the same as a table:

contamination_found      the least share of all test requests, over the WAYS to copy one, that the check names
found_…                  the same share for each way; refused_…: where the copy is the only one. More than 1% named is refused too
honest_refused           the larger share of the default task's training and validation requests that is named against the test set
honest_refused_alone     the share of these that one finding alone would refuse
…_found                  of requests reworded by hand (reworded.jsonl)
seconds_per_1000         time for a thousand training records against the whole test set
curve                    the same figures over the limits in bits of a request, on validation, from which the limit was chosen
"""

import json
import random
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.prose import BODY, TEMPLATE

sys.path.insert(0, str(BODY))

from slm.quality import leaks
from slm.quality.leaks import Leaks
from slm.task.records import Record, read_records

OUTPUT = TEMPLATE / "build" / "bench" / "contamination.json"
REWORDED = Path(__file__).with_name("reworded.jsonl")
FILLERS = ["um", "uh", "like", "well", "so", "hmm", "er", "actually", "basically", "okay"]
TAILS = [
    "thanks a lot and have a nice day",
    "and do it as soon as you can",
    "that would be really great of you",
    "before our guests come over tonight",
]
LOOK_ALIKES = str.maketrans("aceopxyi", "асеорхуі")
LIMITS = (0, 10, 20, 25, 30, 35, 40, 50, 60)
Split = list[Record]


def swapped(text: str, draw: random.Random) -> str:
    said = text.split()
    while len(set(said)) > 1 and said == text.split():
        draw.shuffle(said)
    return " ".join(said)


WAYS: dict[str, Callable[[str, random.Random], str]] = {
    "same": lambda text, draw: text,
    "zero_width": lambda text, draw: "\u200b".join(text),
    "hyphens": lambda text, draw: "-".join(text.split()),
    "homoglyphs": lambda text, draw: text.translate(LOOK_ALIKES),
    "twice": lambda text, draw: f"{text} {text}",
    "tail": lambda text, draw: f"{text} {draw.choice(TAILS)}",
    "filler": lambda text, draw: " ".join(part for word in text.split() for part in (word, draw.choice(FILLERS))),
    "swapped": swapped,
}


def asked(texts: Iterable[str]) -> Split:
    return [Record(str(i), [{"role": "user", "content": text}], line=i) for i, text in enumerate(texts, 1)]


def index(records: Split) -> Leaks:
    return Leaks([(f"test:{r.line}", r) for r in records])


def shares(held_out: Leaks, records: Split) -> tuple[float, float]:
    """Of records: the share that is named, and the share where one finding alone is refused."""
    found = [leak for r in records if (leak := held_out.found_in(r))]
    return len(found) / len(records), sum(leak.certain for leak in found) / len(records)


def copied(held_out: Leaks, records: Split) -> dict[str, tuple[float, float]]:
    draw = random.Random(0)
    return {way: shares(held_out, asked(copy(r.text, draw) for r in records)) for way, copy in WAYS.items()}


def read_task(folder: Path) -> dict[str, Split]:
    return {name: read_records(folder / f"{name}.jsonl", name != "prompts") for name in ("train", "validation", "test", "prompts")}


def figures() -> dict[str, float]:
    task = read_task(BODY / "task")
    test = index(task["test"])
    found = copied(test, task["test"])
    start = time.process_time()
    honest = {"train": shares(test, task["train"])}
    seconds = time.process_time() - start
    honest["validation"] = shares(test, task["validation"])
    said: dict[str, float] = {"contamination_found": min(share for share, _ in found.values())}
    said |= {f"found_{way}": share for way, (share, _) in found.items()}
    said |= {f"refused_{way}": alone for way, (_, alone) in found.items()}
    said |= {"honest_refused": max(share for share, _ in honest.values())}
    said |= {"honest_refused_alone": max(alone for _, alone in honest.values())}
    reworded = [json.loads(line) for line in REWORDED.read_text(encoding="utf-8").splitlines()]
    for kind in ("paraphrase", "translation"):
        said[f"{kind}s_found"] = shares(test, asked(row[kind] for row in reworded))[0]
    return said | {"seconds_per_1000": 1000 * seconds / len(task["train"])}


def curve() -> dict[int, tuple[float, float]]:
    """By limit: the least share of validation requests found, and the share of honest training requests named."""
    task = read_task(BODY / "task")
    before, rows = (leaks.ALONE, leaks.HIDDEN), {}
    for limit in LIMITS:
        leaks.ALONE, leaks.HIDDEN = min(limit, before[0]), limit
        held_out = index(task["validation"])
        rows[limit] = (min(s for s, _ in copied(held_out, task["validation"]).values()), shares(held_out, task["train"])[0])
    leaks.ALONE, leaks.HIDDEN = before
    return rows


def honest_data(public: list[str]) -> dict[str, tuple[int, float, float]]:
    """Each honest split: its records, the share named and the share refused alone, as `check` compares them."""
    rows: dict[str, tuple[int, float, float]] = {}
    for folder in (BODY / "task", *sorted(path for path in (TEMPLATE / "examples").iterdir() if path.is_dir())):
        task = read_task(folder)
        test, both = index(task["test"]), index([*task["validation"], *task["test"]])
        name = "default" if folder.name == "task" else folder.name
        for split, held_out in {"train": both, "validation": test, "prompts": both}.items():
            rows[f"{name}, {split}"] = (len(task[split]), *shares(held_out, task[split]))
    for given in public:
        name, _, files = given.partition("=")
        train, held = (asked(Path(file).read_text(encoding="utf-8").splitlines()) for file in files.split(","))
        rows[f"{name}, train"] = (len(train), *shares(index(held), train))
    return rows


def main() -> None:
    said, limits, honest = figures(), curve(), honest_data(sys.argv[1:])
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"figures": said, "curve": limits, "honest": honest}, indent=2) + "\n", encoding="utf-8")
    for name, value in said.items():
        print(f"{name:28s}{value:10.4f}")
    print(f"\n{'limit, bits':28s}{'found':>10s}{'honest':>10s}")
    for limit, (share, wrong) in limits.items():
        print(f"{limit:<28d}{share:10.3f}{wrong:10.4f}")
    print(f"\n{'honest data':28s}{'records':>10s}{'named':>10s}{'refused':>10s}")
    for name, (records, named, alone) in honest.items():
        print(f"{name:28s}{records:10d}{named:10.4f}{alone:10.4f}")


if __name__ == "__main__":
    main()
