"""Run a module of slm/ with nothing else of this checkout in Python's path.

    python3 -I .github/steps.py slm.ci.steps report

A file at the root, such as base64.py, would stand before the library of that name, in a job that holds a
token. `-I` leaves out the current folder, the user's packages and each variable PYTHON*. The folder of this
file goes, too. So slm/ is loaded by its place; processes that it spawns do the same.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def load_package() -> None:
    """The package `slm` of this checkout, whichever is installed."""
    folder = ROOT / "slm"
    spec = importlib.util.spec_from_file_location(
        "slm", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["slm"] = package
    spec.loader.exec_module(package)


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if not sys.flags.isolated or name.split(".")[0] != "slm":
        sys.exit("error: the form is `python3 -I .github/steps.py slm.MODULE ARGUMENT…`; `-I` is needed")
    del sys.argv[0]
    importlib.import_module("slm.__main__" if name == "slm" else name).main()


load_package()
if __name__ == "__main__":
    main()
