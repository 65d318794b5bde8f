"""Right in every language, for every answer, through every door: facts about the demo's project and its real package.

    make bench-right       (after make demo; five minutes)

Writes build/bench/right.json and prints the same as a table:

cases, cases_wrong           faults and their honest twins that the tests of doors plant: data, suites, endpoint's answers, requests
scripts, scripts_wrong       of tests/test_text.py: same text, near copy, leak, typo, passage, and each score of each kind
reference_pairs, …_differences   random pairs of each figure, and figures that differ from their reference implementation
injections, …_as_system      ways to write a control token into a request, and those that became one, in Transformers and GenAI
answers, answers_round_trip  random answers in twelve scripts, and the share that both decode as it was taught
foundry_…                    the same injections by Foundry Local's own count of tokens, and the share of its answers that are GenAI's
fuzzed, tracebacks, accepted_wrongly   inputs that Hypothesis drew for the five doors, and tests that failed by an exception or a check
"""

import json
import os
import random
import subprocess
import sys
import tempfile
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
from test_control_tokens import ASK_FOUNDRY, ways  # noqa: E402
from test_reference_scores import PAIRS  # noqa: E402

DOORS = ["test_records", "test_strict", "test_server", "test_expectations", "test_markers", "test_real_servers", "test_quality"]
ANSWERS = 5000
FUZZ_EXAMPLES = 5000  # for each door; tests/test_fuzz.py draws an eighth of them for suites
FUZZED = 4 * FUZZ_EXAMPLES + FUZZ_EXAMPLES // 8
SAME = 150  # requests that Foundry Local and GenAI answer both


def outcomes(*files: str, **variables: str) -> dict[str, str]:
    """Each test of these files, and how it failed; empty if it passed."""
    report = OUTPUT.with_name("right.xml")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *(f"tests/{f}.py" for f in files)]
    subprocess.run(command, cwd=PROJECT, env=os.environ | variables, stdout=sys.stderr, check=False)
    found = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        failed = [x.get("message") or x.tag for x in case if x.tag in ("failure", "error")]
        found[f"{case.get('classname')}::{case.get('name')}"] = failed[0] if failed else ""
    report.unlink()
    return found


def passed(found: dict[str, str]) -> int:
    return sum(not message for message in found.values())


def foundry(package: Path) -> dict[str, float]:
    """The injections again, and whether Foundry Local says what GenAI says."""
    tokenizer, runtime = load_tokenizer(package), GenAI(package)
    requests = [text for text in ways(list(control_tokens(tokenizer).values())) if text.strip()]
    texts = [text for script in SCRIPTS for text in (script.text, script.other)]
    asked = [[{"role": "user", "content": text}] for text in requests]
    said = [[{"role": "user", "content": f"{texts[i % len(texts)]} {i}"}] for i in range(SAME)]
    with tempfile.TemporaryDirectory() as scratch:
        found = []
        for messages, longest in ((asked, 1), (said, 32)):
            program = ASK_FOUNDRY.replace("max_output_tokens=1)", f"max_output_tokens={longest})")
            command = [sys.executable, "-c", program, str(package)]
            environment = os.environ | {"SLM_FOUNDRY_DATA": scratch}
            done = subprocess.run(
                command, input=json.dumps(messages), env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=True
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
    wrong = sum(tokens != len(encode_prompt(tokenizer, m)) for m, (_, tokens) in zip(asked, found[0], strict=True))
    same = sum(runtime.ask(runtime.encode(m), 32).text.strip() == text.strip() for m, (text, _) in zip(said, found[1], strict=True))
    return {"injections_as_system_foundry": wrong, "foundry_answers": SAME, "foundry_answers_equal": same / SAME}


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
    by_script = {s.name: not any(failed for test, failed in text.items() if s.name in test) for s in SCRIPTS}
    fuzzed = outcomes("test_fuzz", FUZZ_EXAMPLES=str(FUZZ_EXAMPLES))
    unsound = [message for message in fuzzed.values() if message]
    figures: dict[str, Any] = {
        "cases": len(doors),
        "cases_wrong": len(doors) - passed(doors),
        "scripts": len(by_script),
        "scripts_wrong": len(by_script) - sum(by_script.values()),
        "reference_pairs": PAIRS,
        "reference_differences": len(reference) - passed(reference),
        "fuzzed": FUZZED,
        "tracebacks": sum(not message.startswith("AssertionError") for message in unsound),
        "accepted_wrongly": sum(message.startswith("AssertionError") for message in unsound),
        **injections(package),
        **foundry(package),
        **round_trip(package),
    }
    wrong = [f"{test}: {failed}" for found in (doors, text, reference, fuzzed) for test, failed in found.items() if failed]
    OUTPUT.write_text(json.dumps({"figures": figures, "wrong": wrong}, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:40s}{value:10g}")
    for test in wrong:
        print(f"wrong: {test}")


if __name__ == "__main__":
    main()
