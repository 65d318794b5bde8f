"""README and docs are plain English, as far as that can be measured (benchmarks/prose.py)."""

import pytest

from benchmarks.prose import (
    BODY,
    CELL_WORDS,
    LINE_CHARACTERS,
    SENTENCE_WORDS,
    TEMPLATE,
    code_files,
    findings,
    pages,
    words_in_code,
)

LONG, CELL = " ".join(["word"] * (SENTENCE_WORDS + 1)), " ".join(["word"] * (CELL_WORDS + 1))
WIDE = f"{'a' * LINE_CHARACTERS} b"
# A fault and its honest twin, by the rule that tells them apart.
PLANTED = {
    "a long sentence": ("sentence", f"{LONG}.", f"{LONG.replace('word word', 'word. Word', 1)}."),
    "over wrapped lines": ("sentence", LONG.replace("word word", "word\nword") + ".", LONG.replace("word word", "word\n\nword") + "."),
    "in a list": ("sentence", f"- {LONG}", f"- {LONG[:74]}\n- {LONG[75:]}"),
    "in a quotation": ("sentence", f"> {LONG}.", f"> {LONG[:74]}.\n> {LONG[75:]}."),
    "in an admonition": ("sentence", f'!!! note "Title"\n\n    {LONG}', f'!!! note "Title"\n\n    ```\n    {LONG}\n    ```'),
    "in a tab of a list": ("sentence", f'- item\n\n    === "Tab"\n        {LONG}', f'- item\n\n    === "Tab"\n        {LONG[:74]}'),
    "a colon is no end": ("sentence", LONG.replace("word word", "word: word", 1), LONG.replace("word word", "word. Word", 1)),
    "nor is an abbreviation": ("sentence", LONG.replace("word word", "word, e.g. word", 1), LONG.replace("word word", "etc. Word", 1)),
    "nor is an elision": ("sentence", LONG.replace("word word", "word … word", 1), LONG.replace("word word", "word … Word", 1)),
    "a number has no end": ("sentence", f"0.94 {LONG[5:]}", f"94. {LONG[5:]}"),
    "a link is its text": ("sentence", f"[{LONG}](a)", f"[{LONG[:74]}](a 'b c d e f g h i j k l m n o p q r s t')"),
    "a code span is one word": ("sentence", f"{LONG[:-5]} `a b`", f"{LONG[:-10]} `a b c`"),
    "a dash is no word": ("sentence", f"{LONG} – word", f"{LONG[:-5]} –"),
    "a wide cell": ("cell", f"| a |\n| --- |\n| {CELL} |", f"| a | b |\n| --- | --- |\n| {CELL[:64]} | {CELL[65:]} |"),
    "a cell of two sentences": ("cell", f"| a |\n| --- |\n| {CELL[:64]}. {CELL[65:]}. |", f"| a |\n| --- |\n| {CELL[:64]}. |"),
    "a wide line": ("line", f"# Heading\n\n{WIDE}", f"# {WIDE}\n\ntext"),
    "a wide item": ("line", f"- {WIDE}", f"- {WIDE[:-2]}"),
    "not in a table": ("line", f"{WIDE}\n", f"| a |\n| --- |\n| {WIDE} |"),
    "nor in code": ("line", f"text\n{WIDE}", f"text\n\n```\n{WIDE}\n```\n\n    {WIDE}"),
    "nor in a link's definition": ("line", f"[text] {WIDE}", f"[text]\n\n[text]: https://{'a' * 90} 'a title'"),
    "nor in a picture by itself": ("line", f"![{WIDE}](a.svg) text", f"![{WIDE}](a.svg)"),
    "nor in front matter": ("line", f"---\n\n{WIDE}", f"---\ntitle: {WIDE}\n---\ntext"),
    "lesson": ("word", "The first lesson took an hour.", "The first training run took an hour, `lesson` is a name."),
    "luck": ("word", "# Luck\n", "Pluck it.\n"),
    "knob": ("word", "| knob |\n| --- |\n", "| knobbly |\n| --- |\n"),
    "papers": ("word", "The package and its papers.", "Published papers say so, and one paper does not."),
    "forms of the model": ("word", "Both forms of the model.", "The form of an answer; a model's form."),
    "asks, a noun": ("word", "It sends two asks a second.", "The gate asks for two figures, and those it asks for are there."),
    "of which": ("word", "Ten rows,\nof which two fail.", "Ten rows. Two of them fail, whichever they are."),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_and_its_twin_is_not(fault: str):
    rule, broken, honest = PLANTED[fault]
    assert rule in {finding.rule for finding in findings(broken)}
    assert rule not in {finding.rule for finding in findings(honest)}


def test_a_finding_names_its_line():
    page = f"# Title\n\ntext\n\n!!! note\n    text\n    {WIDE}\n\n| a |\n| --- |\n| b |\n| {CELL} |\n\nOne lesson.\n"
    assert [(finding.line, finding.rule) for finding in findings(page)] == [(7, "line"), (12, "cell"), (14, "word")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(TEMPLATE).as_posix())
def test_readme_and_docs_are_plain(page):
    found = findings(page.read_text(encoding="utf-8"))
    assert not found, "\n".join(f"{page}:{finding.line}: {finding.rule}: {finding.text}" for finding in found)


@pytest.mark.parametrize("path", code_files(), ids=lambda path: path.relative_to(BODY).as_posix())
def test_code_speaks_with_the_fields_words(path):
    found = words_in_code(path)
    assert not found, "\n".join(f"{path}:{finding.line}: {finding.text}" for finding in found)


@pytest.mark.parametrize(
    ("name", "text"),
    {
        "a.py": "one = 1\n# the first lesson\n",
        "b.py": 'raise ValueError(f"{one} lessons, of which two failed")\n',
        "c.yaml": "one: 1  # luck\n",
    }.items(),
)
def test_a_planted_word_is_found_in_code(tmp_path, name: str, text: str):
    (tmp_path / name).write_text(text)
    assert words_in_code(tmp_path / name)
