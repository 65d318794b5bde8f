"""`slm teacher`: what an endpoint teacher has answered, and what that has cost."""

from pathlib import Path
from typing import Annotated

import typer

from slm.cli.root import Panel, group

teacher_commands = group("teacher", Panel.TEACHER, "Costs and paid answers of an endpoint teacher.")
PAID_ANSWERS = Path("answers/teacher.jsonl.gz")


@teacher_commands.command("ledger")
def teacher_ledger() -> None:
    """Print what the teacher has cost, by day and run.

    Reads the store of answers in .resume/. Writes nothing. Takes a second and costs nothing: it asks nobody.
    """
    from slm.teacher.ledger import print_ledger

    print_ledger()


@teacher_commands.command("export")
def teacher_export(
    file: Annotated[Path, typer.Argument(help="File to write.")] = PAID_ANSWERS,
) -> None:
    """Write all paid answers into one file, for another machine.

    Reads the store of answers in .resume/. Writes FILE. Takes seconds and costs nothing. The same answers
    give the same bytes. `dvc add FILE` and `slm push` share it.
    """
    from slm.teacher.transfer import export_answers

    export_answers(file)


@teacher_commands.command("import")
def teacher_import(
    file: Annotated[Path, typer.Argument(help="File that `slm teacher export` wrote.")] = PAID_ANSWERS,
) -> None:
    """Add answers that were paid on another machine to the store in .resume/.

    Reads FILE. Writes the store of answers in .resume/. Takes seconds and costs nothing. An answer that is
    there already is not added twice.
    """
    from slm.teacher.transfer import import_answers

    import_answers(file)


@teacher_commands.command("forget")
def teacher_forget(
    batch: Annotated[str, typer.Argument(help="The batch's name, such as batch_123.")],
) -> None:
    """Give up a lost batch: wait for it no longer.

    Reads the store of answers in .resume/. Writes into it that the batch's requests count as paid. Takes a
    second. They will be asked again, which costs money a second time.
    """
    from slm.teacher.transfer import give_up_batch

    give_up_batch(batch)
