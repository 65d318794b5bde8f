"""Which commands a page names and which a test runs (benchmarks/commands.py): found where they are, and not where they are not."""

import pytest

from benchmarks.commands import called, documented, make_rules, reason, survey

PAGES = {
    "```\nslm repro   # slm chat\n```": {"slm repro"},
    "```sh\n$ slm teacher export FILE && make setup repro N=5\n```": {"slm teacher export", "make setup", "make repro"},
    "```\nTORCH_INDEX=x python3 bootstrap.py \\\n  --torch-index slm\n```": {"python bootstrap.py"},
    "Run `slm gate --explain NAME`, or `python -m slm.ci.device sealed`.": {"slm gate", "python -m slm.ci.device"},
    "`python3 -I .github/steps.py slm.ci.steps report`, `.venv/bin/python -I .github/steps.py slm release fetch`": {
        "python -m slm.ci.steps",
        "slm release fetch",
    },
    "`python -m dvc remote add x` | `dvc repro --force`": {"dvc remote add", "dvc repro"},
    "slm repro is a command, `the slm repro` is not one, nor `make TARGET`, nor `docker … ended with`.": set(),
    "```yaml\nslm repro\n```\n\n```python\nslm.repro\n```": set(),
}
CALLS = {
    'run(project, "make", "setup", "repro", "N=5")': {"make setup", "make repro"},
    'python(project, "-m", "slm.verdict.gate", check=False)': {"python -m slm.verdict.gate"},
    'run(project, str(project / "bin" / "python"), "-m", "slm.ci.plan", "--push")': {"python -m slm.ci.plan"},
    'subprocess.run([sys.executable, "-m", "dvc", "push"])': {"dvc push"},
    'runner.invoke(app, ["teacher", "ledger"])': {"slm teacher ledger"},
    'slm(project, "gate", "--json")': {"slm gate"},
    'COMMANDS = ["slm repro", "slm gate --json"]': {"slm repro", "slm gate"},
    # What mentions a command runs none.
    'assert "slm repro" in text, "run slm gate"': set(),
    'TEXTS = ["make it so", "a light"]': set(),
    'for name in ("slm", "pipeline"):\n    copy(folder / "make" / "x")': set(),
    'run(project, "make", "-n", "extra")': set(),
}
MAKEFILE = """
export HF_HUB_OFFLINE := 1
gate: setup ## judge
\tslm gate
setup: .venv/ready
.venv/ready:
\t$(PYTHON) bootstrap.py
help:
\t@echo slm chat
"""


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_its_commands(page: str):
    assert documented(page) == PAGES[page]


@pytest.mark.parametrize("source", CALLS)
def test_a_test_runs_what_it_calls(source: str):
    assert set(called(source)) == CALLS[source]


def test_a_target_runs_its_recipe_and_prerequisites():
    rules = make_rules(MAKEFILE)
    assert rules["make gate"] == {"make setup", "slm gate"}
    assert rules["make setup"] == {"make .venv/ready"}
    assert rules["make .venv/ready"] == {"python bootstrap.py"}
    assert rules["make help"] == set()


def test_a_reason_is_given_for_what_needs_it_alone():
    assert reason("make pictures") and reason("az ml compute") and reason("slm release image")
    assert reason("slm release card") is None and reason("make gate") is None and reason("azure") is None


def test_a_documented_command_is_tested_or_says_why_not():
    assert [command for command, (_, why) in survey().items() if not why] == []
