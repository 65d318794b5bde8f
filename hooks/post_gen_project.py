"""Make the project a git repository with a first commit, and say what comes next."""

import os
import shutil
import subprocess

NEXT = """
The project is in {folder}. Next:

  cd {folder}
  make setup      # environment and base model, once
  make repro gate # make the model, then judge it
"""


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)


def first_commit():
    git("init", "--quiet", "--initial-branch", "main")
    git("add", "--all")
    # Whoever has no identity yet, or signs with a key that asks, still gets a first commit.
    identity = ["-c", "commit.gpgsign=false"]
    for key, value in (("user.name", "cookiecutter-slmops"), ("user.email", "cookiecutter-slmops@localhost")):
        if subprocess.run(["git", "config", key], capture_output=True, check=False).returncode:
            identity += ["-c", f"{key}={value}"]
    git(*identity, "commit", "--quiet", "--no-verify", "--message", "Start from cookiecutter-slmops")


if shutil.which("git") is None:
    print("git is not installed: install it, then run `git init && git add . && git commit` here; DVC needs a repository.")
else:
    first_commit()
print(NEXT.format(folder=os.path.basename(os.getcwd())))
