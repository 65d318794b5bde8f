"""`slm test`, `lint`, `docs`, `schemas`, `lock`, `extra`, `base-model`: the project's own upkeep."""

from typing import Annotated

import typer

from slm.cli.root import Panel, app


@app.command("test", rich_help_panel=Panel.PROJECT)
def test_command() -> None:
    """Run the unit tests in tests/.

    Reads the project's files. Writes pytest's cache and temporary files. Takes a few minutes.
    """
    from slm.cli.tools import run_tool

    run_tool("pytest", "-q")


@app.command("lint", rich_help_panel=Panel.PROJECT)
def lint_command() -> None:
    """Check style, types and import layers: ruff, mypy and import-linter.

    Reads the code. Writes the tools' caches, and changes no other file. Takes a minute.
    """
    from slm.cli.tools import lint_project

    lint_project()


@app.command("docs", rich_help_panel=Panel.PROJECT)
def docs_command(
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the pages at a local address, and again after each change.")
    ] = False,
) -> None:
    """Build the documentation into site/. A broken link is an error.

    Reads mkdocs.yml and docs/. Writes site/; with --serve, temporary files instead. Takes seconds. Needs `slm
    extra docs` once.
    """
    from slm.cli.tools import build_docs

    build_docs(serve)


@app.command("schemas", rich_help_panel=Panel.PROJECT)
def schemas_command() -> None:
    """Write the JSON schemas of the files that you edit into schemas/, and the reference pages into
    docs/reference/.

    Editors complete and check params.yaml, gates.yaml, task.yaml, waivers.yaml and search.yaml by these
    schemas. Reads the types and the comments of those files. Writes schemas/ and docs/reference/. Takes
    seconds.
    """
    from slm.cli.reference import write_reference
    from slm.cli.schemas import write_schemas

    write_schemas()
    write_reference(app)


@app.command("lock", rich_help_panel=Panel.PROJECT)
def lock_command() -> None:
    """Renew the locks in requirements/ from the .in files beside them.

    Reads the .in files in requirements/, and the package index. Writes the .txt files in requirements/. Takes
    a minute. Needs the network.
    """
    from slm.cli.tools import renew_locks

    renew_locks()


@app.command("extra", rich_help_panel=Panel.PROJECT)
def extra_command(
    name: Annotated[
        str, typer.Argument(help="qlora, entra, ray, deepspeed, or another lock in requirements/.")
    ],
) -> None:
    """Install packages that one parameter of params.yaml asks for.

    Reads the lock in requirements/. Writes the packages into this Python environment. Takes as long as the
    download. Needs the network.
    """
    from slm.cli.tools import install_extra

    install_extra(name)


@app.command("base-model", rich_help_panel=Panel.PROJECT)
def base_model_command() -> None:
    """Download the base model that params.yaml names into .cache/, and the student's own if it has one.

    Reads params.yaml. Writes .cache/. Takes as long as the download: the default model has 100 MB. Set-up
    does this too. Needs the network unless the model is there.
    """
    import os

    os.environ["HF_HUB_OFFLINE"] = "0"
    from slm.base_model import cache_base
    from slm.config.params import load_params

    cache_base(load_params())
