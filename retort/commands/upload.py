"""`retort upload`: teachers, architectures and datasets, sent, inspected, and told ready or rejected."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from retort import render
from retort.client import Assets, Client
from retort.draft import read_inline
from retort.errors import Misused, Rejected
from retort.session import Session, connected
from retort.upload import Progress as Report
from retort.values import Upload

_FORMATS = {".safetensors": "safetensors", ".pt": "torch", ".pth": "torch", ".ckpt": "torch", ".onnx": "onnx"}

upload = typer.Typer(no_args_is_help=True, help="Send a teacher, an architecture or a dataset, and wait for its inspection.")

Name = Annotated[str | None, typer.Option(help="What to call it.", show_default="the file's name")]
Wait = Annotated[bool, typer.Option(help="Wait for the inspection.")]
Mean = Annotated[
    str | None, typer.Option(help="What the network's own normalisation subtracts, one number a channel, comma between; in data units.")
]
Std = Annotated[str | None, typer.Option(help="What it divides by afterwards.")]


@upload.command("teacher")
@connected
def teacher(
    session: Session,
    *,
    file: Annotated[Path, typer.Argument(help="Its weights (.safetensors, .pt, .pth), or the whole of it (.onnx).")],
    architecture: Annotated[
        str | None,
        typer.Option(
            help="JSON such as '{\"family\": …}', a file that holds it, or the id of an uploaded one (arc_…); not for ONNX. "
            'It may say the normalization too: {"architecture": …, "normalization": …}.'
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="safetensors, torch or onnx.", show_default="by the file's ending", metavar="FORMAT")
    ] = None,
    select: Annotated[str | None, typer.Option(help="Which state dict of a .pt file: ema, teacher, …")] = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="OLD=NEW: what names of tensors begin with, here and there. May be given again.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="The names of its outputs in their order: a file with one a line, or with commas between.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="A dataset (ds_…) to evaluate it on at once.")] = None,
    shape: Annotated[str | None, typer.Option("--input", help="C,H,W: the input of an ONNX model that leaves it open.")] = None,
    mean: Mean = None,
    std: Std = None,
    raw: Annotated[bool, typer.Option("--no-normalization", help="The teacher takes the data as it is.")] = False,
    name: Name = None,
    wait: Wait = True,
) -> None:
    """Send a trained teacher."""
    normalization = _normalization(mean, std)
    if normalization is not None and raw:
        raise Misused("--no-normalization contradicts --mean and --std")
    described, told = _described(architecture) if architecture and not architecture.startswith("arc_") else (architecture, {})
    if normalization is None and not raw:
        if "normalization" not in told:
            raise Misused(
                "say what was done to the teacher's input when it was trained",
                hint="--mean 0.5 --std 0.25 (a number a channel, in data units; images lie in [0, 1]), or --no-normalization",
            )
        normalization = told["normalization"]
    client = session.client()
    sent = _send(session, client, file, "teacher")
    given = {
        "format": format or _FORMATS.get(file.suffix.lower()),
        "architecture": described,
        "weights": {"select": select, "rename": dict(_rule(each) for each in rename or [])} if select or rename else None,
        "labels": _labels(labels),
        "dataset": dataset,
        "input": [int(number) for number in _numbers("--input", shape)] if shape else None,
    }
    fields = {"upload": sent.id, "normalization": normalization, **{field: value for field, value in given.items() if value is not None}}
    _create(session, client, client.teachers, name or file.stem, wait=wait, fields=fields)


@upload.command("architecture")
@connected
def architecture(
    session: Session,
    *,
    description: Annotated[str, typer.Argument(help="JSON such as '{\"family\": …}', or a file that holds it.")],
    mean: Mean = None,
    std: Std = None,
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default="its family")] = None,
    wait: Wait = True,
) -> None:
    """Describe a student."""
    described, told = _described(description)
    fields: dict[str, Any] = {"architecture": described}
    normalization = _normalization(mean, std) or told.get("normalization")
    if normalization is not None:
        fields["normalization"] = normalization
    client = session.client()
    _create(session, client, client.architectures, name or str(described.get("family", "architecture")), wait=wait, fields=fields)


@upload.command("dataset")
@connected
def dataset(
    session: Session,
    *,
    file: Annotated[Path, typer.Argument(help="A zip of folders of images, one folder a class; .npz, .safetensors, .parquet or .csv.")],
    format: Annotated[
        str | None, typer.Option(help="imagefolder, npz, safetensors, parquet or csv.", show_default="by the file's ending")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=2, help="How many classes there must be.")] = None,
    size: Annotated[str | None, typer.Option(help="Bring every image to HEIGHTxWIDTH, such as 32x32.")] = None,
    layout: Annotated[str | None, typer.Option(help="NHWC or NCHW, for arrays that could be either.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of labels, for Parquet and CSV.")] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="The data has no labels: it serves transfer only.")] = False,
    name: Name = None,
    wait: Wait = True,
) -> None:
    """Send a dataset."""
    known = format or _format(file)
    if known is None:
        raise Misused(f"{file.name}: its ending does not tell the format", hint=f"--format, one of {', '.join(sorted(_ENDINGS.values()))}")
    labelled = False if unlabelled else None
    given = {"classes": classes, "size": _size(size), "layout": layout, "label": label, "labelled": labelled}
    client = session.client()
    sent = _send(session, client, file, "dataset")
    fields = {"upload": sent.id, "format": known, **{field: value for field, value in given.items() if value is not None}}
    _create(session, client, client.datasets, name or file.stem, wait=wait, fields=fields)


_ENDINGS = {".zip": "imagefolder", ".npz": "npz", ".safetensors": "safetensors", ".parquet": "parquet", ".csv": "csv"}


def _format(file: Path) -> str | None:
    """The format that a file's ending tells; a zip that holds Parquet is no zip of images."""
    known = _ENDINGS.get(file.suffix.lower())
    if known == "imagefolder" and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith(".parquet") for name in archive.namelist()):
                return "parquet"
    return known


@upload.command("weights")
@connected
def weights(session: Session, file: Annotated[Path, typer.Argument(help="A .safetensors file.")]) -> None:
    """Send weights that a student shall start from; name the upload in the job spec."""
    sent = _send(session, session.client(), file, "student")
    session.answer(dict(sent.raw), f"{sent.id} ({sent.bytes:,} bytes)")


def _send(session: Session, client: Client, file: Path, purpose: str) -> Upload:
    with transfer(session, f"sending {file.name}") as report:
        return client.upload(file, purpose=purpose, progress=report)


def _create(session: Session, client: Client, assets: Assets, name: str, *, wait: bool, fields: dict[str, Any]) -> None:
    asset = assets.create(name, **fields)
    if wait:
        session.say(f"{asset.id}: being inspected …")
        try:
            asset = client.wait_ready(asset)
        except Rejected as rejected:
            if not session.json:
                raise
            asset = assets.get(rejected.asset)
    session.answer(dict(asset.raw), render.asset(asset))
    if asset.status == "rejected":
        raise typer.Exit(1)


@contextmanager
def transfer(session: Session, title: str) -> Iterator[Report]:
    """A bar for bytes on a terminal, nothing elsewhere."""
    if not session.err.is_terminal:
        yield lambda done, total: None
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=session.err, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _described(text: str) -> tuple[Any, dict[str, Any]]:
    """An architecture, and what stands beside it: in a job's config.json, and in the demo's teacher.json, its normalization."""
    document = read_inline(text, what="architecture")
    inner = document.get("architecture")
    return (inner, document) if isinstance(inner, dict) else (document, {})


def _rule(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals:
        raise Misused(f"--rename {text}: not OLD=NEW", hint="--rename backbone.= takes the prefix away")
    return old, new


def _labels(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = Path(text).read_text(encoding="utf-8").splitlines() if Path(text).is_file() else text.split(",")
    return [name.strip() for name in names if name.strip()]


def _normalization(mean: str | None, std: str | None) -> dict[str, list[float]] | None:
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise Misused("--mean and --std go together")
    return {"mean": _numbers("--mean", mean), "std": _numbers("--std", std)}


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as wrong:
        raise Misused(f"{option} {text}: not numbers with commas between", hint=f"{option} 0.49,0.48,0.45") from wrong


def _size(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise Misused(f"--size {text}: not HEIGHTxWIDTH", hint="--size 32x32")
    return [int(part) for part in parts]
