"""Better parameters for the student, searched by Optuna and chosen on validation data: the test set is in no
trial's copy.

    slm search --trials 20     goes on until the study has 20 trials; after a stop, the same command goes on
    slm search                 what has been found so far
    slm search --apply         writes the best trial's parameters into params.yaml; `git diff` shows them

A trial is a copy of this checkout with other parameters, in which the stages `distill` and `finetune` run,
and whose student then answers the validation set. With `--storage`, the address of a database that Optuna
knows, many machines with the same commit and data share one study.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import MaxTrialsCallback, Study
from optuna.trial import FrozenTrial, Trial, TrialState
from ruamel.yaml import YAML
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from slm.config.edit import merge, rewrite
from slm.config.loader import load_yaml
from slm.config.params import PARAMS, Params, load_params, value_of
from slm.dvc_cli import dvc, dvc_status, out_of_lock
from slm.errors import UserError
from slm.experiments.search_space import STAGES, Space, nested
from slm.experiments.workspace import GIVEN, RETRY, copy
from slm.files import read_json, sha256_file, sha256_json, source_files
from slm.tables import plain
from slm.task.records import TASK, prediction, read_records

WORK, SPACE, HELD_OUT = Path(".cache/search"), Path("search.yaml"), TASK / "test.jsonl"
STORAGE = f"sqlite:///{WORK.as_posix()}/trials.db"
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
# A machine whose trial has shown no life for this long is taken for dead, and its trial begins again
# elsewhere.
HEARTBEAT_S, DEAD_S = 20, 120
# Whole trials before the median says anything; trials that fail in a row before it is the project that is
# broken.
STARTUP, FAILURES_IN_A_ROW = 3, 3
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeats, since 2021
AGAIN = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)


def search_fingerprint(root: Path, space: Space) -> str:
    """Names all that a trial's score depends on but what is searched: trials that differ in it are never
    compared.
    """
    lock = YAML(typ="safe").load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    stages = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    params = load_params(root / "params.yaml").model_dump()
    for name in space.parameters:
        merge(params, nested({name: None}))
    given = {out["path"]: out["md5"] for name in GIVEN for out in lock[name]["outs"]}
    deps = {
        path
        for name in STAGES
        for path in stages[name]["deps"]
        if path not in given and not path.startswith("models/")
    }
    values = {
        name: value_of(params, name)
        for name in {"evaluate.max_new_tokens", *(p for s in STAGES for p in stages[s]["params"])}
    }
    files = {
        path.relative_to(root).as_posix(): sha256_file(path)
        for dep in sorted(deps)
        for path in source_files(root / dep)
    }
    return sha256_json([given, files, values, space.model_dump()])[:16]


def score_on_validation(folder: Path) -> dict[str, Any]:
    """How the copy's student answers the validation set: score with its 95% interval, and millions of
    parameters.
    """
    from slm.modeling.checkpoints import load_model, load_tokenizer, parameters_m
    from slm.modeling.encoding import encode_prompt
    from slm.modeling.generation import generate
    from slm.task.definition import load_task
    from slm.task.metrics import summarise

    params, task = load_params(folder / "params.yaml"), load_task(folder / TASK / "task.yaml")
    records = read_records(folder / TASK / "validation.jsonl", answered=True)
    student = folder / "models" / "finetuned"
    tokenizer, model = load_tokenizer(student), load_model(student, params)
    prompts = [encode_prompt(tokenizer, r.prompt) for r in records]
    answers = dict(
        generate(model, tokenizer, prompts, params.evaluate.batch_size, params.evaluate.max_new_tokens)
    )
    facts = summarise(task, [prediction(r, answers[i].text, answers[i].cut) for i, r in enumerate(records)])
    return {name: facts[name] for name in ("score", "score_low", "score_high")} | {
        "parameters_m": parameters_m(model)
    }


class Search:
    """The objective: from a trial's parameters to its validation score."""

    def __init__(self, space: Space, params: Params, key: str) -> None:
        self.space, self.params, self.key, self.failed_in_a_row = space, params, key, 0

    def __call__(self, trial: Trial) -> float:
        values = {name: searched.suggest(trial) for name, searched in self.space.parameters.items()}
        trial.set_user_attr("values", values)
        print(f"trial {trial.number}: {said(values)}", flush=True)
        mine = trial.study.get_trials(deepcopy=False)[trial.number]
        # One that was killed goes on where it was, if it was on this machine.
        first = RetryHeartbeatStaleTrialCallback.retried_trial_number(mine)
        try:
            return self.climb(
                trial,
                values,
                WORK / self.key / str(trial.number if first is None else first),
                mine.intermediate_values,
            )
        except KeyboardInterrupt:  # Optuna calls it failed: it begins again
            AGAIN(trial.study, trial.study.get_trials()[trial.number])
            raise

    def climb(self, trial: Trial, values: dict[str, Any], folder: Path, climbed: dict[int, float]) -> float:
        # As it is written there, 2 and not 2.0: DVC knows what has been made with it.
        epochs = values.get(
            "distill.epochs", YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))["distill"]["epochs"]
        )
        copy(folder, nested(values), without=HELD_OUT)
        rewrite(nested({**values, "distill.epochs": epochs}), folder / "params.yaml")
        if search_fingerprint(folder, self.space) != self.key:
            shutil.rmtree(folder)
            raise UserError(
                "the project's files have changed since this search began: start it again, as a new search"
            )
        stale = sorted(set(out_of_lock(dvc_status(folder))) & set(GIVEN))
        if stale:
            shutil.rmtree(folder)
            raise UserError(
                f"dvc.lock is not in sync with the files ({', '.join(stale)}): run `slm repro` first"
            )
        found = {}
        for share in self.space.rungs:
            rung = round(1000 * share)
            if share < 1 and rung in climbed:
                continue
            rewrite(
                nested({"distill.epochs": epochs if share == 1 else epochs * share}), folder / "params.yaml"
            )
            try:
                # nothing goes into DVC's cache; and a killed search may have left a stage running
                for name in STAGES:
                    dvc(
                        "--wait-for-lock",
                        "repro",
                        "--single-item",
                        "--no-commit",
                        name,
                        folder=folder,
                        remedy=RETRY,
                    )
            except UserError as error:
                self.failed_in_a_row += 1
                if self.failed_in_a_row >= FAILURES_IN_A_ROW:
                    raise UserError(
                        f"{error}; {FAILURES_IN_A_ROW} trials in a row have failed: correct that, or narrow "
                        "the space"
                    ) from None
                trial.set_user_attr("failed", str(error))
                shutil.rmtree(folder)
                raise optuna.TrialPruned from None
            found = score_on_validation(folder)
            trial.report(found["score"], rung)
            print(
                f"trial {trial.number}: {share:g} of the epochs, validation score {found['score']:.3f}",
                flush=True,
            )
            if share < 1 and trial.should_prune():
                print(f"trial {trial.number}: below the median, ends here", flush=True)
                shutil.rmtree(folder)
                raise optuna.TrialPruned
        self.failed_in_a_row = 0
        for name, value in found.items():
            trial.set_user_attr(name, value)
        if self.space.most_parameters_m is not None:
            trial.set_constraint("parameters_m", found["parameters_m"] - self.space.most_parameters_m)
        shutil.rmtree(folder)
        return found["score"]


def open_study(address: str, key: str) -> Study:
    shown = address
    try:
        shown = make_url(address).render_as_string(hide_password=True)
        storage = RDBStorage(
            address, heartbeat_interval=HEARTBEAT_S, grace_period=DEAD_S, heartbeat_stale_trial_callback=AGAIN
        )
    except ImportError as error:
        raise UserError(
            f"--storage {shown}: the database's driver is not installed ({error.__cause__ or error}); `uv "
            "pip install` it"
        ) from None
    except (SQLAlchemyError, ValueError) as error:
        raise UserError(
            f"--storage {shown}: cannot be opened ({str(error.__cause__ or error).splitlines()[0]}); "
            "correct the address"
        ) from None
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
    return optuna.create_study(
        storage=storage, study_name=f"student-{key}", direction="maximize", pruner=pruner, load_if_exists=True
    )


def said(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def ranked(study: Study) -> list[FrozenTrial]:
    """Whole trials that are small enough, the best first; of equally good ones the smaller."""
    whole = [
        t
        for t in study.get_trials(states=(TrialState.COMPLETE,))
        if all(v <= 0 for v in t.constraints.values())
    ]
    return sorted(whole, key=lambda t: (-t.value, t.user_attrs["parameters_m"]))


def trials_table(study: Study, space: Space, teacher_m: float | None) -> str:
    rows = [["trial", "score", "95% interval", "parameters, M", "of teacher's", *space.parameters]]
    for t in ranked(study)[:10]:
        facts, share = (
            t.user_attrs,
            "" if teacher_m is None else f"{t.user_attrs['parameters_m'] / teacher_m:.0%}",
        )
        interval = f"{facts['score_low']:.3f} to {facts['score_high']:.3f}"
        shown = [str(facts["values"][name]) for name in space.parameters]
        rows.append(
            [str(t.number), f"{t.value:.3f}", interval, f"{facts['parameters_m']:.3g}", share, *shown]
        )
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    failed = sum("failed" in t.user_attrs for t in pruned)
    return plain(rows) + f"{len(pruned) - failed} more were ended early, {failed} failed\n"


def search(trials: int, storage: str, space_file: Path, apply: bool) -> None:
    """Run trials until the study has so many, those of earlier runs and other machines too; print the best.

    Args:
        trials: in the study when this ends; 0: only say what has been found so far.
        storage: an SQLAlchemy address.
        space_file: what may be changed.
        apply: write the best trial's parameters into params.yaml.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    params = load_params()
    space = load_yaml(space_file, Space, {"params": params})
    if not Path("dvc.lock").exists():
        raise UserError(
            "there is no dvc.lock: run `slm repro` first; trials start from its teacher and the teacher's "
            "answers"
        )
    key = search_fingerprint(Path(), space)
    WORK.mkdir(parents=True, exist_ok=True)
    study = open_study(storage, key)

    known = study.get_trials(deepcopy=False)
    done = sum(t.state in DONE for t in known)
    print(f"search {key}: {done} trials so far", flush=True)
    if done < trials:
        # What params.yaml says is the first trial, as far as the space has it: others are held against it.
        if all(t.state == TrialState.FAIL for t in known):
            now = {name: value_of(params.model_dump(), name) for name in space.parameters}
            study.enqueue_trial(
                {name: value for name, value in now.items() if space.parameters[name].allows(value)},
                skip_if_exists=True,
            )
        try:
            study.optimize(Search(space, params, key), callbacks=[MaxTrialsCallback(trials, states=DONE)])
        except KeyboardInterrupt:
            raise UserError("stopped; the same command resumes the interrupted trial") from None

    best = ranked(study)
    if not best:
        print("no finished trial is small enough")
        return
    teacher = Path("reports/teach.json")
    print(trials_table(study, space, read_json(teacher)["parameters_m"] if teacher.exists() else None))
    values = best[0].user_attrs["values"]
    if apply:
        rewrite(nested(values))
        print(
            f"params.yaml now holds trial {best[0].number}: {said(values)}\n`git diff params.yaml` shows it; "
            "`slm repro && slm gate` makes and judges its model"
        )
    else:
        print(
            f"best: trial {best[0].number}; `slm search --apply` (with the same --space and --storage) "
            "writes it into params.yaml"
        )
