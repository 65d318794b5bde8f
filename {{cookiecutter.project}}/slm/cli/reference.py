"""The reference pages of the documentation, made from what they describe: parameters, gates, task and
commands.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

import typer

from slm.cli.root import EXIT_CODES, PASSED_ON
from slm.config.params import PARAMS, Params
from slm.files import write_text
from slm.tables import markdown
from slm.task.definition import SCORES, Task
from slm.verdict.contract import CONTRACT, Contract
from slm.verdict.registry import BUILT_IN

REFERENCE = Path("docs/reference")
WIDTH = 100  # of a line of prose
NOTE = "<!-- Made by `slm schemas` from the project's own types and comments. Edit those, not this page. -->"
Schema = dict[str, Any]
# Choices at the beginning of a comment, which the type states too.
CHOICES = re.compile(r"^[\w-]+( \| [\w-]+)+($|: |\. )")


def reference_pages(app: typer.Typer) -> dict[str, str]:
    return {
        "commands": commands_page(app),
        "parameters": parameters_page(PARAMS.read_text(encoding="utf-8")),
        "gates": gates_page(CONTRACT.read_text(encoding="utf-8")),
        "task": task_page(),
    }


def write_reference(app: typer.Typer) -> None:
    for name, text in reference_pages(app).items():
        path = REFERENCE / f"{name}.md"
        write_text(path, text)
        print(path.as_posix())


# Comments of a YAML file


def comments_of(text: str) -> dict[str, str]:
    """What the comments of a YAML file say of each key: those above it, and the one behind it.

    A comment above belongs to the next key if no blank line stands between. Keys are named as `teach.epochs`.
    """
    found: dict[str, str] = {}
    above: list[str] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        if not line.strip():
            above = []
        elif line.lstrip().startswith("#"):
            above.append(line.strip().lstrip("# "))
        elif key := re.match(r"( *)([\w.]+):(?: +[^#]*?)?(?: +# (.*))?$", line):
            path = [(depth, name) for depth, name in path if depth < len(key[1])] + [(len(key[1]), key[2])]
            said = sentence(" ".join([*above, key[3] or ""]))
            found[".".join(name for _, name in path)] = said
            above = []
    return found


def sentence(text: str) -> str:
    """A comment as a sentence: its first letter large, a full stop at its end."""
    text = CHOICES.sub("", text.strip())
    if not text or " | " in text.split(".")[0]:  # choices with explanations begin as they are written
        return text
    return text[0].upper() + text[1:] + ("" if text.endswith((".", ")")) else ".")


# Types


def schema_fields(schema: Schema, defs: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Each field of a JSON schema with its own schema; a nested object gives its fields."""
    for name, field in schema.get("properties", {}).items():
        inner = resolved(field, defs)
        place = f"{path}{name}"
        yield place, inner
        if "properties" in inner:
            yield from schema_fields(inner, defs, f"{place}.")


def resolved(field: Schema, defs: Schema) -> Schema:
    if "$ref" in field:
        return {**defs[field["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in field.items() if k != "$ref"}}
    return field


def allowed(field: Schema, defs: Schema) -> str:
    """What a value may be, in words; empty for an object with fields of its own."""
    field = resolved(field, defs)
    if "anyOf" in field:
        return " or ".join(filter(None, (allowed(choice, defs) for choice in field["anyOf"])))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "properties" in field:
        return "an object" if "title" in field else ""
    kind = {"null": "`null`", "integer": "an integer", "number": "a number", "string": "a text"}
    kind |= {"boolean": "`true` or `false`", "array": "a list", "object": "an object"}
    word = kind.get(field.get("type", ""), "any value")
    limits = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{said} {field[name]}" for name, said in limits.items() if name in field]
    return ", ".join([word, *bounds])


def bullets(model_schema: Schema, comments: dict[str, str]) -> dict[str, list[str]]:
    """A line for each field, by the first part of its name."""
    defs, sections = model_schema.get("$defs", {}), dict[str, list[str]]()
    for name, field in schema_fields(model_schema, defs):
        top = name.split(".")[0]
        said = comments.get(name) or sentence(field.get("description", ""))
        lines = sections.setdefault(top, [])
        if "properties" in field and name == top:
            lines.insert(0, f"{fill(said, WIDTH)}\n" if said else "")
        else:
            lines.append(bullet(name, f"{allowed(field, defs)}. {said}"))
    return sections


def bullet(name: str, said: str) -> str:
    return fill(f"- `{name}`: {said}".rstrip(": "), WIDTH, subsequent_indent="  ", break_on_hyphens=False)


# Pages


def parameters_page(text: str) -> str:
    parts = ["# Parameters", NOTE, "These are the parameters of `params.yaml`, with what each may be."]
    for name, lines in bullets(Params.model_json_schema(), comments_of(text)).items():
        parts += [f"## {name}", "\n".join(lines).strip()]
    return "\n\n".join(parts) + "\n"


def gates_page(text: str) -> str:
    schema = Contract.model_json_schema()
    rows = [["gate", "severity", "can be waived", "figure from"]]
    rows += [
        [
            f"`{g.name}`",
            g.severity,
            "yes" if g.waivable else "no",
            f"`{g.stage.split('@')[0]}`" if g.stage else "–",
        ]
        for g in BUILT_IN.values()
    ]
    gate = [line for lines in bullets(schema["$defs"]["Gate"], {}).values() for line in lines]
    rest = bullets(schema, comments_of(text))
    parts = ["# Gates", NOTE, "`gates.yaml` is the contract of a release.", "## A gate of the contract"]
    parts += ["Each entry of `gates` has these fields.", "\n".join(gate)]
    for name in ("released", "allowed_licences", "required_expectations"):
        parts += [f"## {name}", "\n".join(rest[name]).strip()]
    parts += [
        "## Gates that every verdict has",
        "They need no entry in `gates.yaml`.",
        markdown(rows).strip(),
    ]
    return "\n\n".join(parts) + "\n"


def task_page() -> str:
    rows = [["kind", "figures of an answer; the first is the score unless `score` names another"]]
    rows += [
        [f"`{kind}`", ", ".join(f"`{figure}`" for figure in figures)] for kind, figures in SCORES.items()
    ]
    lines = [line for lines in bullets(Task.model_json_schema(), {}).values() for line in lines]
    parts = ["# Task", NOTE, "These are the fields of `task/task.yaml`.", "\n".join(lines)]
    return "\n\n".join([*parts, "## Kinds and scores", markdown(rows).strip()]) + "\n"


def commands_page(app: typer.Typer) -> str:
    parts = ["# Commands", NOTE, "Each command has `--help`, which runs nothing."]
    root: Any = typer.main.get_command(app)
    panel = None
    for name in root.list_commands(None):
        command = root.commands[name]
        if command.rich_help_panel != panel:
            panel = command.rich_help_panel
            parts.append(f"## {panel}")
        inner = getattr(command, "commands", None)
        if inner is None:
            parts += described(f"slm {name}", command)
            continue
        for each, leaf in inner.items():
            parts += described(f"slm {name} {each}", leaf)
    codes = [["code", "means"], *([code, means] for code, means in EXIT_CODES.items())]
    parts += ["## Exit codes", markdown(codes).strip(), fill(PASSED_ON, WIDTH)]
    return "\n\n".join(parts) + "\n"


def described(name: str, command: Any) -> list[str]:
    """A heading, the help, and a line for each argument and option."""
    lines = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        option = parameter.param_type_name == "option"
        label = ", ".join(parameter.opts) if option else (parameter.metavar or parameter.name.upper())
        lines.append(bullet(label, sentence(parameter.help or "")))
    paragraphs = (command.help or "").strip().split("\n\n")
    said = "\n\n".join(fill(" ".join(part.split()), WIDTH) for part in paragraphs)
    return [f"### {name}", said, *(["\n".join(lines)] if lines else [])]
