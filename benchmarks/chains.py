"""The whole quick chain on one small task, asked in English, Nepali and Chinese.

    python -m benchmarks.chains PROJECT            of PROJECT, whose set-up is done, the environment and the base model are used
    python -m benchmarks.chains PROJECT --check    bakes, checks the data and prints ten records of each language; trains nothing

The task: a request to a bus line becomes one call of book, cancel or ask, with an hour (closed) and a stop (any text). benchmarks/languages holds
28 templates a function and the values of the slots; template i says the same in each language. One seeded draw serves all three, so record i is the
same request. A held-out record shares neither its template nor its pair of hour and stop with a training record; each single value is trained on.
All is the same for the three but the words: the parameters too. The base model has read little but English, and its tokenizer spends more tokens on
the others: the shares say what that costs a stub of 3 and 2 layers. They are of one seed, and the test set repeats 24 templates.

A finished language is kept in build/chains/LANGUAGE.json and not run again while the body, the data and the parameters stay; of one that was stopped,
DVC keeps finished stages. Minutes are those of the attempt that finished. Writes build/bench/chains.json and prints it as a table.
"""

import argparse
import json
import random
import shutil
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.planted.world import must, tree_of_body, write_jsonl
from tests.bake import TEMPLATE
from tests.examples import gate, prepared

HOME, OUTPUT = TEMPLATE / "build" / "chains", TEMPLATE / "build" / "bench" / "chains.json"
LANGUAGES, FUNCTIONS = ("english", "nepali", "chinese"), ("book", "cancel", "ask")
HOURS, STOPS, TEMPLATES = 12, 16, 28
# Records of a split, its own templates of each function, and its own hours of each stop, counted from another hour at each.
SIZES = {"train": (360, 16, range(7)), "validation": (80, 4, range(7, 9)), "test": (160, 8, range(9, HOURS))}
PROMPTS = 96  # drawn as training records are, without their answers
# The quick profile, gone over the few examples often enough. Its 48 new tokens hold the longest answer, 40 of the base model's tokens in Nepali.
PARAMS: dict[str, dict[str, Any]] = {
    "teach": {"epochs": 12, "save_steps": 100},
    "synthesize": {"prompts": PROMPTS},
    "distill": {"epochs": 8, "learning_rate": 1.0e-3, "save_steps": 100},
    "finetune": {"epochs": 3, "learning_rate": 2.0e-3, "rank": 16, "save_steps": 100},
    "evaluate": {"sample": dict.fromkeys(("teacher", "onnx", "int4")) | dict.fromkeys(("base", "distilled", "finetuned", "int8"), 8)},
}
Draw = tuple[str, int, int, int]  # function, template, hour, stop


def drawn() -> dict[str, list[Draw]]:
    """The requests of each split, as numbers that hold in every language."""
    chance, found = random.Random(0), dict[str, list[Draw]]()
    templates = chance.sample(range(TEMPLATES), TEMPLATES)
    for split, (records, said, hours) in SIZES.items():
        mine, templates = templates[:said], templates[said:]
        values = [(hour, stop) for hour, stop in product(range(HOURS), range(STOPS)) if (hour + stop) % HOURS in hours]
        left = {key: chance.sample(values, len(values)) for key in product(FUNCTIONS, mine)}
        keys = [(FUNCTIONS[i % 3], mine[i // 3 % said]) for i in range(records + PROMPTS * (split == "train"))]
        found[split] = [(*key, *left[key].pop()) for key in keys]
    size = SIZES["train"][0]
    return found | {"train": found["train"][:size], "prompts": found["train"][size:]}


def read(language: str) -> dict[str, Any]:
    return json.loads((TEMPLATE / "benchmarks" / "languages" / f"{language}.json").read_text(encoding="utf-8"))


def record(words: dict[str, Any], name: str, draw: Draw, answered: bool) -> dict[str, Any]:
    function, template, hour, stop = draw
    values = {"hour": words["hours"][hour], "stop": words["stops"][stop]}
    answer = json.dumps({"name": words["labels"][function], "arguments": values}, ensure_ascii=False, separators=(",", ":"))
    messages = [{"role": "user", "content": words["templates"][function][template].format(**values)}]
    return {"id": name, "messages": [*messages, {"role": "assistant", "content": answer}] if answered else messages, "tags": []}


def write_task(language: str, folder: Path) -> Path:
    """The task in this language as the folder task/ of a project; the expectations are those of the default task."""
    words = read(language)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TEMPLATE / "{{cookiecutter.project}}" / "task" / "expectations", folder / "expectations")
    for split, draws in drawn().items():
        write_jsonl(folder / f"{split}.jsonl", [record(words, f"{split}-{i:03d}", d, split != "prompts") for i, d in enumerate(draws, 1)])
    arguments = {"hour": {"enum": words["hours"]}, "stop": {"type": "string", "minLength": 1, "maxLength": 40}}
    parts = {"name": {"enum": list(words["labels"].values())}, "arguments": {"type": "object", "properties": arguments}}
    parts["arguments"] |= {"required": list(arguments), "additionalProperties": False}
    schema = {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}
    task = {"name": f"bus-line-{language}", "kind": "json", "class_field": "name", "license": "CC0-1.0"}
    task |= {"instruction": "\n".join(words["instruction"]), "answer_schema": schema}
    (folder / "task.yaml").write_text(json.dumps(task, ensure_ascii=False, indent=2), encoding="utf-8")  # JSON is YAML
    return folder


def checked(language: str, source: Path) -> dict[str, Any]:
    """What is kept of this language; unless it is finished, it is baked and the project's own check takes its data."""
    note, folder = HOME / f"{language}.json", HOME / language
    inputs = json.loads(json.dumps({"body": tree_of_body(), "words": read(language), "draws": drawn(), "params": PARAMS}))
    kept = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    if kept.get("inputs") != inputs or not (folder / "params.yaml").exists():
        note.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        prepared(write_task(language, HOME / "tasks" / language), folder, source, PARAMS)
        kept = {"inputs": inputs}
        note.write_text(json.dumps(kept), encoding="utf-8")
    if "rungs" not in kept:
        must(folder, "dvc", "repro", "check")
    return kept


def chain(language: str, kept: dict[str, Any]) -> dict[str, Any]:
    """The same with rungs of the ladder, names of the blocking gates that failed, and minutes."""
    if "rungs" in kept:
        return kept
    folder, start = HOME / language, time.monotonic()
    must(folder, "python", "-m", "slm", "repro")
    gate(folder, "exact_match", floor=0)
    ladder, verdict = (json.loads((folder / "reports" / f"{n}.json").read_text(encoding="utf-8")) for n in ("ladder", "verdict"))
    kept |= {"rungs": {r["name"]: r for r in ladder["rungs"]}, "minutes": (time.monotonic() - start) / 60}
    kept["failed"] = [g["name"] for g in verdict["gates"] if g["severity"] == "block" and g["passed"] is False]
    (HOME / f"{language}.json").write_text(json.dumps(kept), encoding="utf-8")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="a project whose set-up is done")
    parser.add_argument("--check", action="store_true", help="check the data and show some of it, train nothing")
    arguments = parser.parse_args()
    kept = {language: checked(language, arguments.project) for language in LANGUAGES}  # all data before any training
    if arguments.check:
        for language in LANGUAGES:
            rows = (HOME / language / "task" / "test.jsonl").read_text(encoding="utf-8").splitlines()
            print(language, *random.Random(1).sample(rows, 10), sep="\n")
        return
    figures, failed = dict[str, float](), list[str]()
    for language in LANGUAGES:
        print(f"{language} …", file=sys.stderr, flush=True)
        found = chain(language, kept[language])
        failed += [f"{language}: {name}" for name in found["failed"]]
        for name in ("teacher", "int4"):
            rung, prefix = found["rungs"][name], language if name == "int4" else f"{language}_{name}"
            figures |= {f"{prefix}_{f}": rung[f] for f in ("score", "score_low", "score_high", "field_f1", "valid_rate", "n")}
        figures[f"{language}_minutes"] = found["minutes"]
    figures |= {f"{language}_share": figures[f"{language}_score"] / max(figures["english_score"], 1e-9) for language in LANGUAGES[1:]}
    figures |= {"checks_failed": len(failed), "minutes": sum(figures[f"{language}_minutes"] for language in LANGUAGES)}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"figures": figures, "failed": failed}, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:36s}{value:10.3f}")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
