"""What `dvc repro` would make anew here, and about how long that takes; stated before it starts.

Minutes are each stage's `meta.minutes` in dvc.yaml: the default profile's on two cores.
"""

import hashlib
import subprocess
from pathlib import Path

from slm.ci.taken import take
from slm.dvc_cli import DVC, check_dvc_settings, dvc, dvc_status, lacking, out_of_lock, try_dvc
from slm.errors import UserError


def judgeable(missing: set[str]) -> bool:
    """Whether all is here that the gate and the report read: the earlier models may be missing."""
    return not any(name.split("@")[0] in ("evaluate", "measure", "package") for name in missing)


def to_run(stale: set[str], missing: set[str]) -> dict[str, float]:
    """The stages that DVC will run, in order, with the minutes of each."""
    import networkx as nx
    from dvc.repo import Repo

    with Repo() as repo:
        graph = repo.index.graph  # an edge leads from a stage to one that it needs
        by_name = {s.addressing: s for s in graph}
        needed = {by_name[n] for n in (stale if judgeable(missing) else stale | missing)}
        needed |= {later for s in needed for later in nx.ancestors(graph, s)}
        waiting = list(needed)
        while waiting:  # what these need and is missing
            for earlier in graph.successors(waiting.pop()):
                if earlier.addressing in missing and earlier not in needed:
                    needed.add(earlier)
                    waiting.append(earlier)
        order = [s for s in reversed(list(nx.topological_sort(graph))) if s in needed]
        unknown = [s.addressing for s in order if "minutes" not in (s.meta or {})]
        if unknown:
            raise UserError(f"dvc.yaml: {unknown[0]} has no meta.minutes; write the time on two cores")
        return {s.addressing: float(s.meta["minutes"]) for s in order}


def remote() -> bool:
    return bool(
        subprocess.run([*DVC, "remote", "list"], capture_output=True, text=True, check=False).stdout.strip()
    )


def unreadable() -> str:
    """Why the DVC remote cannot be read; empty if it can. Asked once: DVC itself would wait for each folder
    anew, half a minute at a time.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        try:
            storage = repo.cloud.get_remote()
            storage.fs.exists(storage.path)
        except Exception as error:  # each kind of remote has errors of its own
            return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def pull() -> str | None:
    """Take from cache and remote what is there. Why the remote was not read; empty: it was; None: it was not
    asked.

    One that is down or that this run may not read costs minutes, not the run.
    """
    check_dvc_settings()
    dvc("checkout", "--quiet", "--allow-missing")
    if not remote() or not lacking(dvc_status()):
        return None
    why = unreadable()
    if not why and try_dvc("pull", "--quiet", "--allow-missing"):
        why = "DVC's output in the log says why"
    hold_cache()
    if why:
        print(f"the DVC remote could not be read; what the cache lacks is made anew: {why}")
    return why


def push(source: Path | None = None) -> None:
    """source: folder of an artifact whose dvc.lock says what is pushed."""
    if source is not None:
        take(source, ["dvc.lock"])
        hold_cache()
    check_dvc_settings()
    if not remote():
        print(
            "no DVC remote: data and models stay here (`dvc remote add --default storage s3://…` gives one)"
        )
        return
    why = unreadable()
    if not why and try_dvc("push"):
        why = "DVC's output in the log says why"
    if why:
        raise UserError(
            f"data and models could not be pushed to the DVC remote: {why}; files that arrived there "
            "are complete, and `slm push` goes on from there"
        )


def hold_cache(cache: Path = Path(".dvc/cache/files/md5")) -> None:
    """Refuse a cache with a file that is not the one that its name says: another job has filled it."""
    for path in sorted(p for p in cache.glob("[0-9a-f][0-9a-f]/*") if p.is_file()):
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != (path.parent.name + path.name).removesuffix(".dir"):
            raise UserError(f"{path} holds other bytes than its name says; delete it, and take it again")


def check_lock() -> None:
    """Say which stages dvc.lock is not in sync with; an error if there is one."""
    stale = out_of_lock(dvc_status())
    for name, why in stale.items():
        print(f"{name}: {'; '.join(why)}")
    if stale:
        raise UserError(
            "dvc.lock is not in sync with the files: run `slm repro` and commit dvc.lock (or take the one "
            "that this run made)"
        )
    print("dvc.lock is in sync with the files")


def restore(budget: float | None) -> None:
    """Take from cache and remote what is there and run the rest; over the budget, in minutes, run nothing."""
    plan, missing = state_plan(budget, pull())
    if plan:
        dvc("repro", *(["--allow-missing"] if judgeable(missing) else []))


def state_plan(budget: float | None = None, unread: str | None = None) -> tuple[dict[str, float], set[str]]:
    """Print the stages that would run and their minutes.

    Args:
        budget: minutes that there are; None: any.
        unread: what `pull` has said of the remote.

    Returns:
        minutes by stage, and the stages with an output that is neither here nor in the cache.
    """
    status = dvc_status()
    stale, missing = out_of_lock(status), lacking(status)
    plan = to_run(set(stale), missing)
    total = sum(plan.values())
    for name, minutes in plan.items():
        print(
            f"{name:24s}{minutes:6.1f} min  "
            f"{'; '.join(stale.get(name, [])) or 'follows another stage, or its output is not here'}"
        )
    print(f"to run: {len(plan)} stages, about {total:.0f} minutes on two cores")
    forgotten = ""
    if unread == "" and missing - set(stale):
        where = ", ".join(sorted(missing - set(stale)))
        forgotten = (
            f"dvc.lock names outputs that are neither in the cache nor in the DVC remote ({where}): run `slm "
            "push` where they were made"
        )
    if budget is not None and total > budget:
        need = f"about {total:.0f} minutes are needed, and this run has {budget:g}"
        if forgotten and not stale:
            raise UserError(f"{forgotten}; to make it again, {need}")
        unreadable = f"the DVC remote could not be read ({unread}); " if unread else ""
        raise UserError(
            f"{need}: {unreadable}run `slm repro && slm push` at home and commit dvc.lock, or start the "
            "workflow `train` on this branch"
        )
    if forgotten:
        print(forgotten)
    return plan, missing
