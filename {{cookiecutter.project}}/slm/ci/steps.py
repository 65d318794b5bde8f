"""The workflows' own steps, as commands. Standard library only: the jobs that may write install nothing.

    python3 -m slm.ci.steps pending       the status of a new head: no verdict yet
    python3 -m slm.ci.steps find          the pull request that verdict.yml follows, and its head commit
    python3 -m slm.ci.steps candidate     the package that this run made, unpacked into candidate/
    python3 -m slm.ci.steps report        verdict/verdict.json as commit status and comment
    python3 -m slm.ci.steps seal          offered/ into sealed/, if rechecked/ speaks of the same bytes
    python3 -m slm.ci.steps keep          the status of a commit of main, and sealed/ as a draft release
    python3 -m slm.ci.steps sealed        the sealed package of this commit, if main sealed it as good
    python3 -m slm.ci.steps verify        whether sealed/ is what main sealed for this commit
    python3 -m slm.ci.steps publish v1    sealed/ and release/ as the GitHub release v1
    python3 -m slm.ci.steps propose       a branch with the changed files as pull request
    python3 -m slm.ci.steps main-run 12   whether run 12 is a green one of main.yml on the default branch
    python3 -m slm.ci.steps announce v1   the release v1 in released.json, as pull request
    python3 -m slm.ci.steps summary       the verdict as Markdown, into the workflow's summary
    python3 -m slm.ci.steps sign          sealed/ signed with the workflow's identity, into release/sealed.sig

Names, titles and branches of strangers are read from the event's file, never from a command line.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

from slm import github
from slm.ci import seal as sealing
from slm.ci import signing
from slm.ci.signing import verify_attestation
from slm.ci.taken import check_main_run, take
from slm.errors import UserError, brief, exit_on_user_error
from slm.files import Json, sha256_file
from slm.git import git
from slm.verdict import released
from slm.verdict.comment import comment, status_text
from slm.verdict.judged import read_judged
from slm.verdict.released import SEAL, SEALED
from slm.verdict.untrusted import unpack_candidate

STATUS_CONTEXT = "model-verdict"
VERDICT_FOLDER = Path("verdict")
CANDIDATE = Path("candidate")
WAITING = "released"  # the branch whose pull request names a release
MARKER = "<!-- model-verdict -->"
SIGNATURE = Path("release/sealed.sig")
RELEASED_BESIDE = ("SHA256SUMS", "sbom.cdx.json", "sealed.sig")  # the files of release/ that become assets
WORKFLOW_ACCOUNT = "github-actions[bot]"


def event() -> Json:
    return json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))


def output(**values: str) -> None:
    """Step outputs; a value is one line."""
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as stream:
        for name, value in values.items():
            stream.write(f"{name}={' '.join(str(value).split())}\n")


def run_url() -> str:
    e = os.environ
    server = e.get("GITHUB_SERVER_URL", "https://github.com")
    return f"{server}/{github.repository()}/actions/runs/{e.get('GITHUB_RUN_ID', '')}"


def pending() -> None:
    """Whatever a pull request's own workflows call themselves, `model-verdict` exists from now on, and waits
    for the judge.
    """
    github.set_status(
        event()["pull_request"]["head"]["sha"],
        "pending",
        STATUS_CONTEXT,
        "Waits for pr.yml, then for the judge",
        run_url(),
    )


def find() -> None:
    run = event()["workflow_run"]
    pull = github.pull_of(run)
    if pull is None:
        print(
            "no open pull request has this commit as its head (it was pushed over, merged or closed): "
            "nothing to judge"
        )
        output(number="")
        return
    git("fetch", "--quiet", "--no-tags", "origin", f"refs/pull/{pull['number']}/head")
    if git("rev-parse", "FETCH_HEAD").strip() != pull["head"]:
        print("the pull request has moved on: its next run will be judged")
        output(number="")
        return
    output(number=str(pull["number"]), head=pull["head"], base=git("rev-parse", "HEAD").strip())


def candidate() -> None:
    limit = float(os.environ.get("CANDIDATE_LIMIT_MB") or 2000)
    run = event()["workflow_run"]
    found = [
        a
        for a in github.pages(
            f"repos/{github.repository()}/actions/runs/{int(run['id'])}/artifacts", "artifacts"
        )
        if a["name"] == "candidate"
    ]
    if not found:
        output(
            problem=f"the checks of this pull request ended with {run['conclusion']!r} and made no package"
        )
        return
    archive = Path("candidate.zip")
    try:
        newest = max(found, key=lambda a: a["id"])  # a job that was run again leaves another
        if newest["size_in_bytes"] > limit * 1e6:
            raise UserError(
                f"the package is larger than {limit:g} MB; it is not taken (variable CANDIDATE_LIMIT_MB)"
            )
        address = f"repos/{github.repository()}/actions/artifacts/{int(newest['id'])}/zip"
        github.download(address, archive, limit, accept="application/vnd.github+json")
        unpack_candidate(archive, CANDIDATE, limit)
    except UserError as error:
        print(brief(str(error), 600))
        output(problem=str(error))
    finally:
        archive.unlink(missing_ok=True)


def report_verdict() -> None:
    """Whom to report to is asked of GitHub again. Of what the judge has left only verdict.json is read, by
    its form: the job that wrote it has loaded a stranger's model.
    """
    run = event()["workflow_run"]
    pull, head = github.pull_of(run), run["head_sha"]
    if pull is None:
        print("no open pull request has this commit as its head: there is nobody to report to")
        return
    try:
        judged = read_judged(VERDICT_FOLDER / "verdict.json", head)
    except UserError as error:
        print(brief(str(error), 600))
        github.set_status(
            head,
            "error",
            STATUS_CONTEXT,
            "The judge itself failed: see its run, and start it again",
            run_url(),
        )
        sys.exit(1)
    state = "success" if judged.verdict.passed else "failure"
    github.set_status(head, state, STATUS_CONTEXT, status_text(judged), run_url())
    text = f"{comment(judged)}\n[Run of the judge]({run_url()})\n\n{MARKER}\n"
    github.upsert_comment(pull["number"], MARKER, text)


def seal() -> None:
    """Compare what is offered with what was asked, and put it into sealed/; output: whether it passed."""
    exam = any(Path("exam").glob("*.enc"))
    content = sealing.seal_offer(os.environ["GITHUB_SHA"], exam)
    output(passed="true" if content["passed"] else "false")


def keep() -> None:
    """The status of a commit of main; a package that passed is kept as a draft release, named by its seal."""
    sha, seal_file = os.environ["GITHUB_SHA"], SEALED / SEAL
    attested = os.environ.get("ATTESTED") == "success"
    content = json.loads(seal_file.read_text(encoding="utf-8")) if seal_file.exists() else None
    if content is None or (content["passed"] and not attested):
        words = "No package was sealed: see the run"
        github.set_status(sha, "error", STATUS_CONTEXT, words, run_url())
        return
    if not content["passed"]:
        words = f"The model is refused: {sealing.refused_by()}"
        github.set_status(sha, "failure", STATUS_CONTEXT, words, run_url())
        return
    tag = f"sealed-{sha256_file(seal_file)}"
    text = (
        f"The package of {sha}, as it was asked and judged. `release.yml` takes it from here; it may be "
        "deleted once another is released."
    )
    github.create_release(tag, sha, tag, text, sorted(SEALED.iterdir()), draft=True)
    github.set_status(sha, "success", STATUS_CONTEXT, f"The model passes its gates ({tag})", run_url())


def sealed() -> None:
    """The sealed package of the tagged commit, once it is sure that main's workflow sealed it.

    A status and a draft release only say what to fetch. The attestation says who made it.
    """
    sha, branch = os.environ["GITHUB_SHA"], os.environ.get("DEFAULT_BRANCH") or "main"
    try:
        git("merge-base", "--is-ancestor", sha, f"refs/remotes/origin/{branch}")
    except UserError:
        raise UserError(
            f"commit {sha[:12]} is not on {branch}: only commits of {branch} are released"
        ) from None
    status = github.newest_status(sha, STATUS_CONTEXT) or {"state": "none", "description": ""}
    named = re.search(r"sealed-([0-9a-f]{64})", status["description"] or "")
    by = (status.get("creator") or {}).get("login")
    if status["state"] != "success" or not named or by != WORKFLOW_ACCOUNT:
        raise UserError(
            f"commit {sha[:12]} has the verdict {status['state']}{f' by {by}' if by else ''}: a release "
            "needs a commit that main.yml judged good and sealed; tag a commit of main whose status "
            "`model-verdict` is green"
        )
    tag = named[0]
    release = github.release_by_tag(tag)
    if release is None:
        raise UserError(f"there is no sealed package {tag}: run the workflow `main` on this commit again")
    SEALED.mkdir(exist_ok=True)
    for asset in release["assets"]:
        if Path(asset["name"]).name != asset["name"]:
            raise UserError(f"{tag}: the name of asset {asset['name']!r} is a path")
        address = f"repos/{github.repository()}/releases/assets/{int(asset['id'])}"
        github.download(address, SEALED / asset["name"], github.LARGEST_ASSET_MB)
        print(f"{asset['name']}: {asset['size'] / 1e6:.1f} MB")
    if not (SEALED / SEAL).is_file() or sha256_file(SEALED / SEAL) != named[1]:
        raise UserError(f"{tag}: its {SEAL} is not the one that main.yml has sealed; run `main` again")
    content = released.read_seal(SEALED)
    if content["commit"] != sha or content["passed"] is not True:
        raise UserError(f"{tag} is not the seal of a good package of {sha[:12]}; run `main` on it again")
    verify_attestation(SEALED / SEAL, sha)


def verify() -> None:
    """sealed/ is what main's workflow sealed for this commit, whoever handed it on."""
    released.read_seal(SEALED)
    verify_attestation(SEALED / SEAL, os.environ["GITHUB_SHA"])


def publish(tag: str) -> None:
    sha = os.environ["GITHUB_SHA"]
    card = Path("release/README.md").read_text(encoding="utf-8")
    # Other jobs of this run have loaded the package since it was verified: what they left is verified again.
    verify()
    assets = [
        *sorted(SEALED.iterdir()),
        *(p for p in map(Path("release").joinpath, RELEASED_BESIDE) if p.exists()),
    ]
    github.create_release(tag, sha, tag, card, assets, draft=False, renewed=SIGNATURE.name)
    print(f"released {tag}")


def announce(tag: str) -> None:
    """Name a release in released.json by pull request, on top of an entry that still waits in one: none is
    lost, none taken back.
    """
    entry = released.RELEASED
    seen, pull, text = (
        branch_tip(WAITING),
        github.open_pull_of(WAITING),
        Path("release/README.md").read_text(encoding="utf-8"),
    )
    if seen and pull:
        git("fetch", "--quiet", "--no-tags", "origin", f"refs/heads/{WAITING}")
        git("checkout", "--quiet", "FETCH_HEAD", "--", str(entry))
        waits = json.loads(entry.read_text(encoding="utf-8"))["released"]["tag"]
        text = (
            f"This pull request named {waits} until now, which was not merged. The entry here was made from "
            f"that one.\n\n{text}"
        )
    before = entry.read_text(encoding="utf-8")
    released.name(SEALED, tag)
    if entry.read_text(encoding="utf-8") == before:
        print(f"{entry}{f' of pull request #{pull}' if pull else ''} already says all of it")
        return
    named, best = (json.loads(entry.read_text(encoding="utf-8"))[n]["tag"] for n in ("released", "best"))
    if named != tag:
        text = (
            f"{tag} was released after {named}, which is of a later commit and stays the released model. "
            f"The best so far is {best}.\n"
        )
    propose(WAITING, "Name the released model", text, [str(entry)], seen)


def branch_tip(branch: str) -> str:
    """Commit of a branch of this repository; empty if there is none."""
    return git("ls-remote", "origin", f"refs/heads/{branch}").strip().split("\t")[0]


def propose(branch: str, title: str, text: str, files: list[str], seen: str) -> None:
    """Commit the named files on a branch from here and open or update its pull request; no change, no pull
    request.

    seen: the branch's commit that this was made with in mind; if another run has moved it since, nothing is
    pushed.
    """
    base = os.environ.get("DEFAULT_BRANCH") or "main"
    git("add", "--", *files)
    if not git("diff", "--cached", "--name-only").strip():
        print("nothing changed: no pull request")
        return
    git("switch", "--quiet", "--force-create", branch)
    identity = [
        "-c",
        "user.name=github-actions[bot]",
        "-c",
        "user.email=41898282+github-actions[bot]@users.noreply.github.com",
    ]
    git(*identity, "commit", "--quiet", "--message", title)
    try:
        git(
            "push",
            "--quiet",
            f"--force-with-lease=refs/heads/{branch}:{seen}",
            "origin",
            f"HEAD:refs/heads/{branch}",
        )
    except UserError as error:
        raise UserError(
            f"{error}; if another run moved the branch {branch} meanwhile, run this job again: it goes on "
            "from there"
        ) from None
    text += f"\n[The run that made it]({run_url()})\n"
    if not os.environ.get("HAS_BOT_TOKEN"):
        text += (
            "\nOpened with the workflow's own token: GitHub starts its checks once a person approves them "
            "here, or closes and reopens it.\n"
        )
    number = github.open_pull(branch, base, title, text)
    output(number=str(number), head=git("rev-parse", "HEAD").strip())
    print(f"pull request #{number}")


def propose_files(branch: str, title: str, body: Path, files: list[str], source: Path | None = None) -> None:
    """source: folder of an artifact that text and files are taken from, once they are checked."""
    if source is not None:
        take(source, [body.as_posix(), *files])
    propose(branch, title, body.read_text(encoding="utf-8"), files, branch_tip(branch))


def show_verdict() -> None:
    """The verdict as Markdown, into the summary of a workflow where there is one."""
    path, target = Path("reports/verdict.md"), os.environ.get("GITHUB_STEP_SUMMARY")
    text = "No verdict was reached: the step that failed says why.\n"
    if path.exists():
        text = path.read_text(encoding="utf-8")
    if not target:
        print(text, end="")
        return
    with Path(target).open("a", encoding="utf-8") as stream:
        stream.write(text)


def sign() -> None:
    signing.sign_folder(SEALED, SIGNATURE, None)


@exit_on_user_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    simple = {
        "pending": pending,
        "find": find,
        "candidate": candidate,
        "report": report_verdict,
        "seal": seal,
        "keep": keep,
        "verify": verify,
        "sealed": sealed,
        "summary": show_verdict,
        "sign": sign,
    }
    for name in simple:
        commands.add_parser(name)
    for name in ("publish", "announce"):
        commands.add_parser(name).add_argument("tag")
    proposing = commands.add_parser("propose")
    proposing.add_argument("branch")
    proposing.add_argument("title")
    proposing.add_argument("body", type=Path)
    proposing.add_argument("files", nargs="+")
    proposing.add_argument(
        "--from", dest="source", type=Path, help="folder that body and files are taken from"
    )
    commands.add_parser("main-run").add_argument("number")
    arguments = parser.parse_args()
    if arguments.command == "propose":
        propose_files(arguments.branch, arguments.title, arguments.body, arguments.files, arguments.source)
    elif arguments.command == "main-run":
        check_main_run(arguments.number, event()["repository"]["default_branch"])
    elif arguments.command in ("publish", "announce"):
        {"publish": publish, "announce": announce}[arguments.command](arguments.tag)
    else:
        simple[arguments.command]()


if __name__ == "__main__":
    main()
