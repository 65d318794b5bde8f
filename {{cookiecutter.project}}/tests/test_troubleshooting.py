"""The messages of docs/troubleshooting.md are those that the code prints."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Printed by a shell, by other programs, or by GitHub.
OF_OTHERS = {
    "slm: command not found",
    "dvc: command not found",
}
CONSTANT = re.compile(r'^([A-Z_]+) = (?:Path\()?"([^"]+)"', re.MULTILINE)
ROW = re.compile(r"^\| (`.*?) \|", re.MULTILINE)


def printed() -> str:
    """All texts of the code: a constant by its value, any other value as `…`; without backquotes, which the
    page cannot quote.
    """
    paths = [ROOT / "bootstrap.py", *(ROOT / "slm").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")]
    sources = [path.read_text(encoding="utf-8") for path in paths]
    constants = dict(pair for source in sources for pair in CONSTANT.findall(source))
    texts = []
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.JoinedStr):
            parts = [
                p.value if isinstance(p, ast.Constant) else constants.get(ast.unparse(p).strip("{}"), "…")
                for p in node.values
            ]
            texts.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    return "\n".join(texts).replace("`", "")


def messages(page: str) -> list[str]:
    """The quoted messages of the tables' first cells."""
    return [quoted for cell in ROW.findall(page) for quoted in re.findall(r"`([^`]+)`", cell)]


def missing(page: str, code: str) -> list[str]:
    """The messages of which a part between two values stands nowhere in the code."""
    return [
        message
        for message in messages(page)
        if message not in OF_OTHERS and not all(part.strip() in code for part in message.split("…"))
    ]


def test_each_message_is_one_of_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert len(messages(page)) > 50
    assert missing(page, printed()) == []


@pytest.mark.parametrize("message", ["no such file; run the pipeline", "… is unknown; remove it or else"])
def test_a_message_that_nothing_prints_is_found(message: str):
    assert missing(f"| `{message}` | cause | do |\n", printed()) == [message]
