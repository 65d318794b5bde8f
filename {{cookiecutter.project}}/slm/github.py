"""GitHub's API, as far as the workflows need it. Standard library only: a job that may write installs
nothing.

Address, repository and token come from the variables that Actions sets; without a token public repositories
can be read.
"""

import json
import os
import re
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files import Json, sha256_file

CHUNK_BYTES = 1 << 20
LARGEST_ASSET_MB = 20_000


def repository() -> str:
    """owner/name, of the workflow or of this clone's origin."""
    name = os.environ.get("GITHUB_REPOSITORY")
    if not name:
        url = subprocess.run(
            ["git", "remote", "get-url", "origin"], capture_output=True, text=True, check=False
        ).stdout.strip()
        found = re.search(r"[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", url)
        name = found[1] if found else ""
    if not name:
        raise UserError("which repository? Set GITHUB_REPOSITORY=owner/name, or give this clone an origin")
    return name


def open_url(method: str, path: str, body: Any = None, accept: str = "application/vnd.github+json") -> Any:
    """The open response of one request; `path` is below the API's root, or an address that the API gave."""
    root = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    request = urllib.request.Request(path if "://" in path else f"{root}/{path}", method=method)
    request.add_header("Accept", accept)
    request.add_header("X-GitHub-Api-Version", "2022-11-28")
    token = os.environ.get("GITHUB_TOKEN")
    if token:
        # Not sent on when the API redirects to a storage host, which refuses it.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    if isinstance(body, bytes):
        request.data, kind = body, "application/octet-stream"
    else:
        request.data, kind = (json.dumps(body).encode() if body is not None else None), "application/json"
    if request.data is not None:
        request.add_header("Content-Type", kind)
    try:
        return urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        raise UserError(
            f"GitHub answers {error.code} to {method} {path.split('?')[0]}: {error.read(300)!r}"
        ) from None
    except OSError as error:
        raise UserError(
            f"GitHub cannot be reached ({method} {path.split('?')[0]}): {error}; run the job again"
        ) from None


def call(method: str, path: str, body: Any = None) -> Any:
    with open_url(method, path, body) as response:
        text = response.read()
    return json.loads(text) if text else None


def pages(path: str, key: str | None = None) -> list[Json]:
    """All rows of a list, page by page."""
    rows: list[Json] = []
    for page in range(1, 21):
        found = call("GET", f"{path}{'&' if '?' in path else '?'}per_page=100&page={page}")
        found = found[key] if key else found
        rows += found
        if len(found) < 100:
            break
    return rows


def download(path: str, target: Path, limit_mb: float, accept: str = "application/octet-stream") -> None:
    """accept: assets of releases are sent as bytes only when asked for as such, artifacts of runs only when
    not.
    """
    left = int(limit_mb * 1e6)
    with open_url("GET", path, accept=accept) as response, target.open("wb") as stream:
        while block := response.read(CHUNK_BYTES):
            left -= len(block)
            if left < 0:
                target.unlink()
                raise UserError(f"GitHub's response is larger than {limit_mb:g} MB; it is refused")
            stream.write(block)


def pull_of(run: Json) -> Json | None:
    """The open pull request whose head a workflow run tested.

    The run's payload comes from GitHub, not from the pull request; the number is asked of the API and counts
    only if its head is still the commit that was tested.
    """
    query = urllib.parse.urlencode(
        {"state": "open", "head": f"{run['head_repository']['owner']['login']}:{run['head_branch']}"}
    )
    for pull in pages(f"repos/{repository()}/pulls?{query}"):
        if (
            pull["head"]["sha"] == run["head_sha"]
            and (pull["head"]["repo"] or {}).get("full_name") == run["head_repository"]["full_name"]
        ):
            return {
                "number": int(pull["number"]),
                "base": pull["base"]["sha"],
                "head": pull["head"]["sha"],
                "branch": pull["base"]["ref"],
            }
    return None


def set_status(sha: str, state: str, context: str, description: str, url: str) -> None:
    body = {"state": state, "context": context, "description": description[:140], "target_url": url}
    call("POST", f"repos/{repository()}/statuses/{sha}", body)


def newest_status(sha: str, context: str) -> Json | None:
    """The newest status of one context on a commit: state, description."""
    rows = pages(f"repos/{repository()}/commits/{sha}/statuses")
    return next((r for r in rows if r["context"] == context), None)


def upsert_comment(number: int, marker: str, body: str) -> None:
    """Update the bot's own comment that holds `marker`, or post it."""
    base = f"repos/{repository()}/issues"
    for comment in pages(f"{base}/{number}/comments"):
        if marker in comment["body"] and comment["user"]["type"] == "Bot":
            call("PATCH", f"{base}/comments/{comment['id']}", {"body": body})
            return
    call("POST", f"{base}/{number}/comments", {"body": body})


def release_by_tag(tag: str) -> Json | None:
    """A release by its tag, drafts too (for which the API has no address of their own)."""
    return next((r for r in pages(f"repos/{repository()}/releases") if r["tag_name"] == tag), None)


def download_asset(tag: str, name: str, target: Path) -> None:
    release = release_by_tag(tag)
    asset = next((a for a in (release or {}).get("assets", []) if a["name"] == name), None)
    if asset is None:
        raise UserError(
            f"the GitHub release {tag} has no asset {name}; check the tag, and that this token may read it"
        )
    download(f"repos/{repository()}/releases/assets/{asset['id']}", target, LARGEST_ASSET_MB)


def create_release(
    tag: str, commit: str, title: str, body: str, assets: list[Path], draft: bool, renewed: str = ""
) -> None:
    """A release with just these assets, or none: it is a draft until the last asset is up.

    Args:
        renewed: name of an asset that each run makes anew, a signature: a draft gets the new one, and what is
            published keeps its own.

    Raises:
        UserError: a release of this name holds another asset, or another file under the name of one. Somebody
            else made it, and nothing of it is kept or changed.
    """
    made = release_by_tag(tag)
    if made is None:
        fields = {"tag_name": tag, "target_commitish": commit, "name": title, "body": body, "draft": True}
        made = call("POST", f"repos/{repository()}/releases", fields)
    earlier = next((a for a in made["assets"] if a["name"] == renewed), None)
    if earlier and made["draft"]:
        call("DELETE", f"repos/{repository()}/releases/assets/{earlier['id']}")
    if earlier:
        made["assets"].remove(earlier)
        assets = assets if made["draft"] else [path for path in assets if path.name != renewed]
    there = {a["name"]: a for a in made["assets"] if a["state"] == "uploaded"}
    _hold_assets(tag, there, {path.name: path for path in assets})
    for asset in made["assets"]:
        if asset["state"] != "uploaded":  # an upload that broke off keeps its name, and nothing else
            call("DELETE", f"repos/{repository()}/releases/assets/{asset['id']}")
    for path in assets:
        if path.name not in there:
            address = made["upload_url"].split("{")[0]
            call("POST", f"{address}?name={urllib.parse.quote(path.name)}", path.read_bytes())
    # What is there now, and not what was there before the uploads.
    made = release_by_tag(tag) or made
    kept = {a["name"]: a for a in made["assets"] if made["draft"] or a["name"] != renewed}
    _hold_assets(tag, kept, {path.name: path for path in assets})
    if not draft:
        fields = {"draft": False, "body": body, "name": title}
        call("PATCH", f"repos/{repository()}/releases/{made['id']}", fields)


def _hold_assets(tag: str, there: dict[str, Json], wanted: dict[str, Path]) -> None:
    """Refuse a release with an asset that is not the wanted file of its name, byte by byte."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, asset in there.items():
            found = Path(scratch) / "asset"
            if name in wanted:
                address = f"repos/{repository()}/releases/assets/{asset['id']}"
                download(address, found, LARGEST_ASSET_MB)
            if name not in wanted or sha256_file(found) != sha256_file(wanted[name]):
                raise UserError(
                    f"the release {tag} is there already and holds {name!r}, which this run did not make; "
                    "find out who made that release, delete it, and run the job again"
                )


def open_pull_of(branch: str) -> int | None:
    """Number of the open pull request from a branch of this repository."""
    query = urllib.parse.urlencode({"state": "open", "head": f"{repository().split('/')[0]}:{branch}"})
    return next((int(pull["number"]) for pull in pages(f"repos/{repository()}/pulls?{query}")), None)


def open_pull(branch: str, base: str, title: str, body: str) -> int:
    """Open a pull request from a branch of this repository, or update the one that is open."""
    number = open_pull_of(branch)
    if number is not None:
        call("PATCH", f"repos/{repository()}/pulls/{number}", {"title": title, "body": body})
        return number
    return int(
        call(
            "POST",
            f"repos/{repository()}/pulls",
            {"head": branch, "base": base, "title": title, "body": body},
        )["number"]
    )
