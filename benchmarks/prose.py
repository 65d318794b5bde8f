"""The measurable part of plain English: what README and docs hold that a reader stumbles over.

    python -m benchmarks.prose [FILE ...]       prints each finding as FILE:LINE; without a file, of all that are checked

`benchmarks/house.py` counts with it, `tests/test_prose.py` refuses with it. The rules:

sentence  At most 30 words. A word is what stands between spaces or dashes and holds a letter or a digit; a code span is one
          word, a link its text, an image none. A sentence ends with `.`, `!` or `?` before a space (not after e.g., i.e., vs.,
          cf.), with `…` before a capital, and with its paragraph or list item. A colon or a semicolon does not end one.
cell      At most 25 words in a cell of a table, counted in the same way.
line      At most 100 characters in a line of prose. Tables, code blocks, headings, link definitions, HTML blocks and
          pictures by themselves are no prose; a line without a space (an address) cannot be wrapped.
word      None of WORDS, in prose, cells and headings; code spans are not read.

Admonitions and tabs of MkDocs (`!!! note "Title"`, `??? note`, `=== "Tab"`) are read as what stands in them; front matter is not.
"""

import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

TEMPLATE = Path(__file__).parent.parent
BODY = TEMPLATE / "{{cookiecutter.project}}"

SENTENCE_WORDS, CELL_WORDS, LINE_CHARACTERS = 30, 25, 100
_MANY = r"\d[\d,.]*|two|three|four|five|ten|many|several|few|more|fewer|all|these|those|the|its|their|repeated|other|of|per|between"
# What only this project says, and what the field says.
WORDS = {
    r"lessons?": "training run",
    r"luck(?:y|iest|ily)?": "noise, variance",
    r"knobs?": "parameter",
    r"(?<!research )(?<!published )(?<!scientific )papers": "model card and SBOM",
    r"forms? of (?:(?:the|a|each|every|its|this) )?models?": "variant",
    rf"(?:(?<=\s)|^)(?:{_MANY}) asks": "queries, requests",
    r"of which": "a sentence of its own",
}
_WORDS = {re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): said for pattern, said in WORDS.items()}
_END = re.compile(r"""[.!?]["'”’)\]]*\s+|…["'”’)\]]*\s+(?=[A-Z])""")
_ABBREVIATIONS = ("e.g.", "i.e.", "vs.", "cf.")
_CONTAINER = re.compile(r"^(?P<indent> *)(?:!!!|\?\?\?\+?|===!?) .*$")


@dataclass(frozen=True)
class Finding:
    line: int
    rule: str
    text: str


def pages() -> list[Path]:
    """README, changelog and docs of the template, of its examples, and of the baked project."""
    named = [TEMPLATE / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    here = [*named, *(TEMPLATE / "docs").glob("*.md"), *(TEMPLATE / "examples").glob("*/README.md")]
    baked = [BODY / "README.md", BODY / "slm" / "README.md", *(BODY / "docs").rglob("*.md")]
    return sorted(path for path in (*here, *baked) if path.exists())


def _plain_markdown(lines: list[str]) -> list[str]:
    """The same lines without front matter and without what only MkDocs understands; each keeps its number."""
    lines = list(lines)
    if lines and lines[0] == "---" and "---" in lines[1:]:
        end = lines.index("---", 1)
        lines[: end + 1] = [""] * (end + 1)
    number, fence = 0, None
    while number < len(lines):
        line = lines[number].strip()
        if line.startswith(("```", "~~~")) and (fence is None or line.startswith(fence)):
            fence = None if fence else line[:3]
        match = None if fence else _CONTAINER.match(lines[number])
        if match:
            lines[number] = ""
            inside = f"{match['indent']}    "
            for after in range(number + 1, len(lines)):
                if lines[after].strip() and not lines[after].startswith(inside):
                    break
                lines[after] = match["indent"] + lines[after][len(inside) :] if lines[after].strip() else ""
        number += 1
    return lines


def _text(inline: Token) -> str:
    """What a reader reads; a code span is one word."""
    parts = []
    for child in inline.children or []:
        if child.type == "text":
            parts.append(child.content)
        elif child.type == "code_inline":
            parts.append("code")
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts)


def words(text: str) -> int:
    return sum(bool(re.search(r"\w", word)) for word in re.split(r"[\s—–]+", text))


def sentences(text: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(text):
        if not text[: end.end()].rstrip().lower().endswith(_ABBREVIATIONS):
            yield text[start : end.end()].strip()
            start = end.end()
    if text[start:].strip():
        yield text[start:].strip()


def findings(text: str) -> list[Finding]:
    """What a page breaks of the rules above."""
    raw = text.split("\n")
    found = []
    block, line = "", 0
    for token in MarkdownIt("commonmark").enable("table").parse("\n".join(_plain_markdown(raw))):
        line = token.map[0] + 1 if token.map else line
        if token.type in ("paragraph_open", "heading_open", "th_open", "td_open"):
            block = token.type.removesuffix("_open")
        if token.type != "inline":
            continue
        read = _text(token)
        found += [
            Finding(line, "word", f"{match[0].strip()} ({said})") for pattern, said in _WORDS.items() for match in pattern.finditer(read)
        ]
        if block in ("th", "td") and words(read) > CELL_WORDS:
            found.append(Finding(line, "cell", f"{words(read)} words: {read[:60]}"))
        if block == "paragraph":
            found += [Finding(line, "sentence", f"{words(s)} words: {s[:60]}") for s in sentences(read) if words(s) > SENTENCE_WORDS]
            for number in range(*token.map or (0, 0)) if read.strip() else ():
                if len(raw[number]) > LINE_CHARACTERS and " " in raw[number].strip(" -*>"):
                    found.append(Finding(number + 1, "line", f"{len(raw[number])} characters"))
    return found


def texts_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """Comments, docstrings and messages of a file of Python, and comments of YAML, TOML and Makefiles, each with its line."""
    if path.suffix == ".py":
        with path.open("rb") as stream:
            for token in tokenize.tokenize(stream.readline):
                if tokenize.tok_name[token.type] in ("COMMENT", "STRING", "FSTRING_MIDDLE"):
                    yield token.start[0], token.string
    else:
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if "#" in line or "desc:" in line:
                yield number, line


def words_in_code(path: Path) -> list[Finding]:
    """Words that only this project says, in what people read of its code."""
    return [
        Finding(line, "word", f"{match[0].strip()} ({said})")
        for line, text in texts_of_code(path)
        for pattern, said in _WORDS.items()
        for match in pattern.finditer(text)
    ]


def code_files() -> list[Path]:
    """Code and configuration of the baked project, as adopters read them."""
    suffixes = (".py", ".yaml", ".yml", ".toml", ".j2")
    found = [path for path in BODY.rglob("*") if path.suffix in suffixes or path.name == "Makefile"]
    return sorted(path for path in found if "tests" not in path.relative_to(BODY).parts)


def figures(texts: list[str]) -> dict[str, int]:
    rules = [finding.rule for text in texts for finding in findings(text)]
    return {
        "sentences_over_30_words": rules.count("sentence"),
        "cells_over_25_words": rules.count("cell"),
        "prose_lines_over_100": rules.count("line"),
        "words_only_we_use": rules.count("word"),
    }


def main(files: list[str]) -> int:
    paths = [Path(name) for name in files] or pages()
    found = 0
    for path in paths:
        for finding in findings(path.read_text(encoding="utf-8")):
            print(f"{path}:{finding.line}: {finding.rule}: {finding.text}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
