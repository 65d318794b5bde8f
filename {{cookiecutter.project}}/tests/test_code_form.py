"""The form of the code: functions that are read on one screen, and one meaning for each public name of slm.

The length of a line is ruff's to hold (pyproject.toml).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONGEST = 70


def sources() -> list[Path]:
    """Python of slm/ and pipeline/, and bootstrap.py."""
    found = [*(ROOT / "slm").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py"), *ROOT.glob("bootstrap.py")]
    return sorted(found)


def function_lines(source: str) -> Iterator[tuple[str, int]]:
    """Each function with its lines, from `def` to its end; methods and inner functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def public_names(source: str) -> set[str]:
    """Functions, classes and constants that a module defines at its top level; imported ones are others'."""
    names: set[str] = set()
    waiting: list[ast.stmt] = [*ast.parse(source).body]
    for node in waiting:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names |= {
                    n.id for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                }
        elif isinstance(node, ast.If | ast.Try | ast.With):
            waiting += [
                child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node
            ]
    return {name for name in names if not name.startswith("_")}


def long_functions(modules: dict[str, str]) -> list[str]:
    return [
        f"{path}: {name} has {lines} lines, {LONGEST} are the most"
        for path, source in modules.items()
        for name, lines in function_lines(source)
        if lines > LONGEST
    ]


def shared_names(modules: dict[str, str]) -> dict[str, list[str]]:
    """Names that two modules of slm define, `main` apart, with these modules."""
    places: dict[str, list[str]] = {}
    for path, source in modules.items():
        for name in public_names(source) - {"main"} if path.startswith("slm/") else ():
            places.setdefault(name, []).append(path)
    return {name: paths for name, paths in sorted(places.items()) if len(paths) > 1}


def read_all() -> dict[str, str]:
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sources()}


def test_functions_are_read_on_one_screen():
    assert long_functions(read_all()) == []


def test_public_names_have_one_meaning():
    assert shared_names(read_all()) == {}


def test_a_long_function_is_found():
    def of(lines: int) -> str:
        return "class A:\n    @property\n    async def f(self):\n" + "        pass\n" * (lines - 1)

    assert long_functions({"slm/a.py": of(LONGEST + 1)}) == ["slm/a.py: f has 71 lines, 70 are the most"]
    assert long_functions({"slm/a.py": of(LONGEST)}) == []


def test_a_name_with_two_meanings_is_found():
    first = "A, B = 1, 2\n\n\ndef f():\n    INNER = 1\n\n\ndef main():\n    pass\n"
    for second in (
        "A = 1",
        "B: int = 1",
        "def f(): pass",
        "class A: pass",
        "try:\n    import x\nexcept ImportError:\n    A = 1",
    ):
        found = shared_names({"slm/a.py": first, "slm/b.py": second})
        assert [*found.values()] == [["slm/a.py", "slm/b.py"]], second
    for second in (
        "_A = 1",
        "from slm.a import A",
        "def main(): pass",
        "INNER = 1",
        "def g():\n    A = 1",
        "A.b = 1",
        "x[A] = 1",
    ):
        assert shared_names({"slm/a.py": first, "slm/b.py": second}) == {}, second
    assert shared_names({"slm/a.py": first, "pipeline/b.py": "A = 1"}) == {}
