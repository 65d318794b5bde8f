"""Right in every language, for every answer, through every door: facts about the demo's project and its real package.

    make bench-right       (after make demo; five minutes)

Writes build/bench/right.json and prints the same as a table:

cases, cases_wrong           faults and their honest twins that the tests of doors plant: data, suites, endpoint's answers, requests
scripts, scripts_wrong       of tests/test_text.py: same text, near copy, leak, typo, passage, and each score of each kind
reference_pairs, …_differences   random pairs of each figure, and figures that differ from their reference implementation
injections, …_as_system      ways to write a control token into a request, and those that became one, in Transformers and GenAI
answers, answers_round_trip  random answers in twelve scripts, and the share that both decode as it was taught
"""

import json
import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

PROJECT = Path(sys.argv[1]).resolve()
OUTPUT = Path("build/bench/right.json").resolve()
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from scripts import SCRIPTS  # noqa: E402
from slm.inference.genai import GenAI  # noqa: E402
from slm.modeling.checkpoints import load_tokenizer  # noqa: E402
from slm.modeling.encoding import control_tokens, encode_answer, encode_prompt  # noqa: E402
from test_control_tokens import ways  # noqa: E402
from test_reference_scores import PAIRS  # noqa: E402

DOORS = ["test_records", "test_strict", "test_server", "test_expectations", "test_markers", "test_real_servers", "test_quality"]
ANSWERS = 5000


def outcomes(*files: str) -> dict[str, bool]:
    """Each test of these files, and whether it passed."""
    report = OUTPUT.with_name("right.xml")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *(f"tests/{f}.py" for f in files)]
    subprocess.run(command, cwd=PROJECT, stdout=sys.stderr, check=False)
    cases = ElementTree.parse(report).getroot().iter("testcase")
    found = {f"{c.get('classname')}::{c.get('name')}": not any(x.tag in ("failure", "error") for x in c) for c in cases}
    report.unlink()
    return found


def injections(package: Path) -> dict[str, int]:
    """Ways to write a control token into a request, and how many became one, by runtime."""
    tokenizer, runtime = load_tokenizer(package), GenAI(package)
    controls = control_tokens(tokenizer)
    requests = [text for text in ways(list(controls.values())) if text.strip()]

    def held(ids: list[int]) -> Counter[int]:
        return Counter(i for i in ids if i in controls)

    plain = held(encode_prompt(tokenizer, [{"role": "user", "content": "a"}]))
    asked = [[{"role": "user", "content": text}] for text in requests]
    return {
        "injections": len(asked),
        "injections_as_system_transformers": sum(held(encode_prompt(tokenizer, m)) != plain for m in asked),
        "injections_as_system_genai": sum(held(runtime.encode(m)) != plain for m in asked),
    }


def round_trip(package: Path) -> dict[str, float]:
    """Random answers with words of every script, as labels, texts and fields, and the share that comes back."""
    tokenizer, runtime, draw = load_tokenizer(package), GenAI(package), random.Random(0)
    words = [word for script in SCRIPTS for text in (script.text, script.other) for word in text.split() or [text]]
    same = 0
    for _ in range(ANSWERS):
        said = [draw.choice(words) for _ in range(draw.randint(1, 5))]
        name = draw.choice(["set_light", "play_media", draw.choice(words)])
        call = json.dumps({"name": name, "arguments": {"room": said[0], "text": " ".join(said)}}, ensure_ascii=False, separators=(",", ":"))
        answer = draw.choice([said[0], " ".join(said), call])
        ids = encode_answer(tokenizer, answer)
        same += tokenizer.decode(ids, skip_special_tokens=True) == answer == runtime.tokenizer.decode(ids[:-1])
    return {"answers": ANSWERS, "answers_round_trip": same / ANSWERS}


def main() -> None:
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    (package,) = (path / "model" for path in (PROJECT / "dist").iterdir() if path.is_dir())
    doors, text, reference = outcomes(*DOORS), outcomes("test_text"), outcomes("test_reference_scores")
    by_script = {s.name: all(passed for test, passed in text.items() if s.name in test) for s in SCRIPTS}
    figures: dict[str, Any] = {
        "cases": len(doors),
        "cases_wrong": len(doors) - sum(doors.values()),
        "scripts": len(by_script),
        "scripts_wrong": len(by_script) - sum(by_script.values()),
        "reference_pairs": PAIRS,
        "reference_differences": len(reference) - sum(reference.values()),
        **injections(package),
        **round_trip(package),
    }
    wrong = [test for found in (doors, text, reference) for test, passed in found.items() if not passed]
    OUTPUT.write_text(json.dumps({"figures": figures, "wrong": wrong}, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:40s}{value:10g}")
    for test in wrong:
        print(f"wrong: {test}")


if __name__ == "__main__":
    main()
