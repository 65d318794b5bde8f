"""Make the project a git repository with a first commit, and say what comes next."""

import os
import pathlib
import re
import subprocess
import sys

NEXT = """
The project is in {folder}. Next:

  cd {folder}
  python bootstrap.py                               # environment and base model, once
  source .venv/bin/activate                         # Windows: .venv\\Scripts\\activate
  slm repro                                         # make the model
  slm gate                                          # judge it
  git add dvc.lock && git commit -m "First model"   # then push

Another task than function calls? docs/your-own-task.md leads the way; the template's examples/ has seven.
"""

# The project is installed into its environment under its own name: one that a package has would replace that package there.
slug = os.path.basename(os.getcwd())
locks = "".join(path.read_text(encoding="utf-8") for path in pathlib.Path("requirements").glob("*.txt"))
if re.search(rf"^{re.escape(slug)}(==| *;)", locks, re.MULTILINE):
    print(f"project: '{slug}' cannot be used: the project needs a package of that name; choose another", file=sys.stderr)
    sys.exit(1)

# Inside another repository's git hook these name that repository, which must not get our commit.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}


def git(*arguments, check=True):
    return subprocess.run(["git", *arguments], check=check, capture_output=True, text=True, env=ENVIRONMENT)


def first_commit():
    git("init", "--quiet", "--initial-branch", "main")
    git("add", "--all")
    # Whoever has no identity yet, or signs with a key that asks, still gets a first commit.
    identity = ["-c", "commit.gpgsign=false"]
    for key, value in (("user.name", "cookiecutter-slmops"), ("user.email", "cookiecutter-slmops@localhost")):
        if git("config", key, check=False).returncode:
            identity += ["-c", f"{key}={value}"]
    git(*identity, "commit", "--quiet", "--no-verify", "--message", "Start from cookiecutter-slmops")


try:
    first_commit()
except (OSError, subprocess.CalledProcessError) as error:  # no git, or one that fails: the project is good all the same
    print(f"git made no first commit ({error}): install or repair it, then run `git init && git add . && git commit` here.")
print(NEXT.format(folder=os.path.basename(os.getcwd())))
