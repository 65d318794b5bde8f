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

    Reads the store of answers in .resume/. Asks nobody and costs nothing.
    """
    from slm.teacher.ledger import print_ledger

    print_ledger()


@teacher_commands.command("export")
def teacher_export(
    file: Annotated[Path, typer.Argument(help="File to write.")] = PAID_ANSWERS,
) -> None:
    """Write all paid answers into one file, for another machine.

    Reads the store of answers in .resume/. The same answers give the same bytes. `dvc add FILE` and `slm
    push` share it.
    """
    from slm.teacher.transfer import export_answers

    export_answers(file)


@teacher_commands.command("import")
def teacher_import(
    file: Annotated[Path, typer.Argument(help="File that `slm teacher export` wrote.")] = PAID_ANSWERS,
) -> None:
    """Add answers that were paid on another machine to the store in .resume/.

    An answer that is there already is not added twice.
    """
    from slm.teacher.transfer import import_answers

    import_answers(file)


@teacher_commands.command("forget")
def teacher_forget(
    batch: Annotated[str, typer.Argument(help="The batch's name, such as batch_123.")],
) -> None:
    """Give a batch up that is gone: wait for it no longer.

    Its requests count as paid and will be asked again, which costs money a second time.
    """
    from slm.teacher.transfer import give_up_batch

    give_up_batch(batch)
