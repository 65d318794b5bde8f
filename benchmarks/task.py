"""Is the default task worth its place? Facts about its data, and what a model must beat.

    make bench-task       (runs in the demo's environment: make demo first)

Writes build/bench/task.json and prints the same as a table. Masked: argument values are replaced by one sign, so that a template shows.
"""

import json
import re
import sys
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer

PROJECT = Path(sys.argv[1])
sys.path.insert(0, str(PROJECT))

from slm.modeling.checkpoints import load_tokenizer  # noqa: E402
from slm.quality.similarity import NEAR, Index  # noqa: E402
from slm.task.answers import canonical, parse  # noqa: E402
from slm.task.definition import load_task  # noqa: E402
from slm.task.metrics import score_one  # noqa: E402
from slm.task.records import Record, read_records  # noqa: E402
from slm.task.text import normal  # noqa: E402

SECOND = Path(__file__).parent / "second_labels"
OUTPUT = Path(__file__).parent.parent / "build" / "bench" / "task.json"


def masked(record: Record) -> str:
    text = record.text.casefold()
    arguments = parse(record.answer)["arguments"] if record.answer else {}
    for value in sorted((str(v).casefold() for v in arguments.values()), key=len, reverse=True):
        text = text.replace(value, " argument ")
    return normal(re.sub(r"\d+", " argument ", text))


def near_duplicates(texts: list[str]) -> float:
    """Share of texts whose word 3-grams overlap those of an earlier one by more than NEAR (Jaccard)."""
    index = Index([(str(i), text) for i, text in enumerate(texts)])
    return sum(index.nearest(text, before=i)[1] > NEAR for i, text in enumerate(texts)) / len(texts)


def main() -> None:
    task = load_task(PROJECT / "task" / "task.yaml")
    splits = {n: read_records(PROJECT / "task" / f"{n}.jsonl", n != "prompts") for n in ("train", "validation", "test", "prompts")}
    figures: dict[str, float] = {}
    for name, records in splits.items():
        texts = [masked(r) for r in records]
        figures[f"{name}_examples"] = len(records)
        figures[f"{name}_masked_distinct"] = len(set(texts)) / len(texts)
        figures[f"{name}_near_duplicates"] = near_duplicates(texts)

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    known = vectorizer.fit_transform([r.text for r in splits["train"]])
    nearest = (vectorizer.transform([r.text for r in splits["test"]]) @ known.T).argmax(axis=1).A1
    hits = [score_one(task, r.answer, splits["train"][i].answer)["score"] for r, i in zip(splits["test"], nearest, strict=True)]
    figures["nearest_neighbour_exact_match"] = sum(hits) / len(hits)

    for path in sorted(SECOND.glob("*.jsonl")):
        second = {row["id"]: row["answer"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
        pairs = [(canonical(parse(r.answer)), canonical(parse(second[r.id]))) for r in splits[path.stem] if r.id in second]
        figures[f"{path.stem}_labelled_twice"] = len(pairs)
        figures[f"{path.stem}_agreement"] = sum(a == b for a, b in pairs) / len(pairs)
        figures[f"{path.stem}_agreement_on_function"] = sum(a["name"] == b["name"] for a, b in pairs) / len(pairs)

    # What the vocabulary was not cut for: the test's requests, and English prose.
    base, cut = (load_tokenizer(PROJECT / "models" / name) for name in ("base", "teacher"))
    figures["vocabulary"] = len(cut)
    for name, texts in (
        ("test_requests", [r.text for r in splits["test"]]),
        ("readme", [(PROJECT / "README.md").read_text(encoding="utf-8")]),
    ):
        before, after = (sum(len(t(text, add_special_tokens=False)["input_ids"]) for text in texts) for t in (base, cut))
        figures[f"{name}_tokens_of_base"] = after / before

    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"figures": figures}, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:36s}{value:10.3f}")


if __name__ == "__main__":
    main()
