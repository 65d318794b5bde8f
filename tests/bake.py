"""Bake the template, as `cookiecutter` does on the command line, without questions.

python -m tests.bake build/my-slm
"""

import shutil
import sys
from pathlib import Path

from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).parent.parent


def bake(output: Path, **answers: str) -> Path:
    """Bake into the folder `output`, whose name becomes the slug unless the answers give another."""
    answers = {"project": output.name, **answers}
    # Only what git knows is the template: build/ and .venv/ are not copied, the folder of the body is enough.
    return Path(cookiecutter(str(TEMPLATE), no_input=True, extra_context=answers, output_dir=str(output.parent), default_config=True))


def main() -> None:
    output = Path(sys.argv[1])
    if output.exists():
        # The environment and the answers that are already paid for survive; everything else is baked anew.
        kept = output.with_name(f".{output.name}.kept")
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for name in (".venv", ".cache", ".resume"):
            if (output / name).exists():
                (output / name).rename(kept / name)
        shutil.rmtree(output)
        bake(output)
        for path in kept.iterdir():
            path.rename(output / path.name)
        kept.rmdir()
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        bake(output)


if __name__ == "__main__":
    main()
