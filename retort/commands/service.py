"""`retort up` and `retort key`: the service on this machine, and who may use it."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from retort.errors import Misused
from retort.folder import Folder
from retort.session import DEFAULT_FOLDER, Session, connected, console, data_folder
from retort.up import Options, make_key
from retort.up import up as serve
from retort.version import __version__

key = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


def up(
    *,
    folder: Annotated[Path | None, typer.Argument(help="Where everything is kept.", show_default="RETORT_DATA, else ./retort-data")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    slots: Annotated[int, typer.Option(min=1, help="Jobs at once.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads a job.", show_default="cores / slots")] = None,
    device: Annotated[str, typer.Option(help="Where jobs run: cpu, or cuda for the GPUs of this machine.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="When ready, answer with one JSON document.")] = False,
) -> None:
    """Run the whole service on this machine, in one folder, until Ctrl-C."""
    if device not in ("cpu", "cuda"):
        raise Misused(f"--device {device}: it is cpu or cuda")
    err = console(stderr=True)
    home = Folder(data_folder(folder))

    def ready(url: str) -> None:
        if as_json:
            document = {"url": url, "data": str(home.path), "key_file": str(home.service), "pid": os.getpid(), "version": __version__}
            out = console()
            out.out(json.dumps(document), highlight=False)
            out.file.flush()
            return
        found = home.path == Path(DEFAULT_FOLDER).resolve() and not os.environ.get("RETORT_DATA")
        lines: list[str | tuple[str, str]] = [
            ("Retort ", "bold"), f"{__version__} serves at ", (url, "bold cyan"), f"   (its API, to read and try: {url}/docs)\n",
            f"  data  {home.path}\n  logs  {home.logs}/api.log, worker.log\n  key   in {home.service}, which only you can read\n",
            "In another terminal:\n" + ("" if found else f"  export RETORT_DATA={home.path}\n"),
            "  retort methods          what it can do\n  retort upload --help    send a teacher, an architecture, a dataset\n"
            "  retort submit --help    distil\n",
            "Ctrl-C stops it.",
        ]  # fmt: skip
        err.print(Text.assemble(*lines))

    err.print(f"starting in {home.path} …")
    serve(home, Options(port=port, slots=slots, threads=threads, device=device), ready=ready, say=err.print)
    err.print("stopped")


@key.command("make")
@connected
def make(
    session: Session,
    name: Annotated[str, typer.Argument(help="What it is for.")],
    tenant: Annotated[
        str | None,
        typer.Option(help="Make it for this tenant, new or not, in the database of the folder on this machine.", show_default="your own"),
    ] = None,
) -> None:
    """Make an API key; it is shown once."""
    if tenant is None:
        made = session.client().keys.create(name)
    else:
        folder = data_folder(session.data)
        if not (folder / "retort.db").is_file():
            raise Misused(f"{folder} is no folder of a `retort up`", hint="--tenant works where the data is: name it with --data DIR")
        made = {"object": "api_key", "name": name, "tenant": tenant, "key": make_key(Folder(folder), tenant=tenant, name=name)}
    session.answer(made, Text(str(made["key"])))


@key.command("list")
@connected
def list_(session: Session) -> None:
    """List the keys of your tenant, without their secrets."""
    keys = session.client().keys.list()
    lines = [f"{each['id']}  {each.get('name', '')}" + ("  (revoked)" if each.get("revoked_at") else "") for each in keys]
    session.answer({"object": "list", "data": keys}, Text("\n".join(lines)))


@key.command("revoke")
@connected
def revoke(session: Session, id: Annotated[str, typer.Argument(help="As `retort key list` shows it.")]) -> None:
    """Make a key useless from now on."""
    session.client().keys.revoke(id)
    session.answer({"id": id, "revoked": True}, Text(f"{id} is revoked"))
