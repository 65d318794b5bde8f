"""`slm gate`, `judge`, `calibrate`, `changes`, `summary`, `exam`: the verdict."""

from pathlib import Path
from typing import Annotated

import typer

from slm.cli.root import Panel, app, group

exam_commands = group("exam", Panel.VERDICT, "A hidden exam: a test set that nobody can train on.")


@app.command("gate", rich_help_panel=Panel.VERDICT)
def gate_command(
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Show what one gate rests on: answers, figures, what changed since the released model.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verdict as JSON, and nothing else.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the verdict as Markdown, and nothing else.")
    ] = False,
) -> None:
    """Judge the model of this checkout by gates.yaml; exit with 1 if it is refused.

    Reads what `slm repro` has measured, and measures nothing itself. Writes reports/verdict.json and
    reports/verdict.md; with --explain, nothing. Takes seconds; the first time after a release, it downloads
    the released model.
    """
    if (explain is not None) + as_json + as_markdown > 1:
        raise typer.BadParameter("give one of --explain, --json and --markdown")
    from slm.verdict.gate import explain_verdict, run_gate

    if explain is not None:
        explain_verdict(explain)
    elif not run_gate("json" if as_json else "markdown" if as_markdown else "table"):
        raise typer.Exit(1)


@app.command("judge", rich_help_panel=Panel.VERDICT)
def judge_command(
    package: Annotated[
        Path | None, typer.Argument(help="Folder of a model. Without it, the package in dist/.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="Commit of the default branch, 40 digits.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="Commit that is judged, 40 digits.")
    ] = None,
) -> None:
    """Judge a package alone, as a pull request is judged; exit with 1 if it is refused.

    Asks the model the whole test set and times it beside the released one. Reads the package, task/,
    params.yaml, gates.yaml, waivers.yaml and released.json. Writes verdict/. Takes some minutes. Believes
    nothing but the package's bytes.
    """
    from slm.verdict.judge import judge_change

    if not judge_change(package, base, head):
        raise typer.Exit(1)


@app.command("calibrate", rich_help_panel=Panel.VERDICT)
def calibrate_command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Predictions of at least two models. Without them, those in predictions/ that are complete."
        ),
    ] = None,
) -> None:
    """Estimate how often the verdict is wrong with your models and test set, and propose limits.

    Reads predictions/, task/test.jsonl and gates.yaml. Writes reports/calibration.json. Takes a minute or
    two.
    """
    from slm.verdict.calibration.proposal import propose_limits

    propose_limits(files or [])


@app.command("changes", rich_help_panel=Panel.VERDICT)
def changes_command(
    base: Annotated[str, typer.Argument(help="Commit to which the change would be merged.")],
    head: Annotated[str, typer.Argument(help="Commit of the change.")],
    steps: Annotated[
        bool, typer.Option("--steps", help="Write model=true or model=false as a workflow step's output.")
    ] = False,
) -> None:
    """Print what a change touches: the model, the judge's own files, gates that became looser.

    Reads the two commits from Git, and runs nothing of them. Writes nothing; with --steps, the step's output.
    Takes a second.
    """
    from slm.verdict.changes import print_changes

    print_changes(base, head, steps)


@app.command("summary", rich_help_panel=Panel.VERDICT)
def summary_command() -> None:
    """Print the last verdict as Markdown; in a workflow, write it into the run's summary.

    Reads reports/verdict.md, which `slm gate` writes. Writes the run's summary, in a workflow alone. Takes a
    second.
    """
    from slm.ci.steps import show_verdict

    show_verdict()


@exam_commands.command("new")
def exam_new(
    file: Annotated[Path, typer.Argument(help="Labelled records, in the form of task/test.jsonl.")],
) -> None:
    """Encrypt a labelled file as the hidden exam of this project.

    Reads FILE and task/. Writes exam/, which you commit, and its two keys into .exam/, which you do not.
    Takes a second. It prints how main's workflow gets the keys.
    """
    from slm.verdict.exam import make_exam

    make_exam(file)


@exam_commands.command("requests")
def exam_requests(
    target: Annotated[Path, typer.Argument(help="File to write, outside of this checkout.")],
) -> None:
    """Decrypt the exam's requests, for the job that asks them.

    Reads exam/requests.enc, and the variable EXAM_REQUESTS_KEY. Writes TARGET. Takes a second.
    """
    from slm.verdict.exam import open_requests

    open_requests(target)


@exam_commands.command("answers")
def exam_answers() -> None:
    """Encrypt what the model said in the exam, so that the next job can take it.

    Reads rechecked/exam.jsonl, and the variable EXAM_REQUESTS_KEY. Writes rechecked/exam.enc in its place.
    Takes a second.
    """
    from slm.verdict.exam import close_answers

    close_answers()


@exam_commands.command("score")
def exam_score() -> None:
    """Score what the model said in the exam beside the public test set; exit with 1 if the gap is too large.

    Reads rechecked/, exam/, gates.yaml, and the variables EXAM_REQUESTS_KEY and EXAM_ANSWERS_KEY. Writes
    exam-result/result.json, which holds no text of the exam. Takes seconds.
    """
    from slm.ci.seal import EXAM_RESULT, RECHECKED
    from slm.verdict.exam import score_exam

    if score_exam(RECHECKED, EXAM_RESULT).refuses:
        raise typer.Exit(1)
