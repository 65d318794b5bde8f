"""`slm device`: the sealed package on other machines."""

from pathlib import Path
from typing import Annotated

import typer

from slm.cli.root import Panel, group

device_commands = group("device", Panel.DEVICE, "Try the sealed package on a device.")


@device_commands.command("test")
def device_test(
    sealed: Annotated[Path, typer.Argument(help="Folder of a sealed package.")],
    examples: Annotated[
        int, typer.Option(metavar="N", help="How many test examples are asked.", min=1)
    ] = 100,
    threads: Annotated[int, typer.Option(metavar="N", help="Threads of the runtime.", min=1)] = 1,
) -> None:
    """Check that the package answers here as it did where it was judged; exit with 1 if it does not.

    Reads the sealed package and devices.json. Writes device.json. Takes a minute or two. devices.json says
    how many answers may differ; without it, 5% may.
    """
    from slm.ci.device import try_device

    try_device(sealed, examples, threads)


@device_commands.command("tolerance")
def device_tolerance(
    facts: Annotated[Path, typer.Argument(help="Folder with the device.json of every device.")],
) -> None:
    """Write devices.json: how many answers may differ on a device, from what devices have said.

    Reads every device.json below FACTS. Writes devices.json. Takes seconds. If devices.json is there already,
    nothing changes.
    """
    from slm.ci.device_tolerance import write_tolerance

    write_tolerance(facts)
