"""What lies beside the exported files, whatever their format: card, configuration, figures, provenance and checksums."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.blobs import digest_of
from core.export import Facts, formats, versions
from core.export.card import card, gain

DOCUMENTS = ("README.md", "config.json", "preprocessor_config.json", "metrics.json", "provenance.json")

Told = Mapping[str, Any]
"""What became of one format: {"format", "refused", "facts"}."""


def write_documents(
    facts: Facts, exports: Sequence[Told], folder: Path, *, threads: int, teacher: Sequence[Mapping[str, float]] | None
) -> list[Path]:
    """Write README.md, config.json, preprocessor_config.json, metrics.json, provenance.json and, over all that lies in the folder then,
    SHA256SUMS; their paths. `teacher` is the teacher's latency, measured as that of the exports was.
    """
    made = {"seed": facts.seed, "hardware": facts.hardware, "versions": versions()}
    _write(folder / "config.json", {**_config(facts), "versions": versions()})
    _write(folder / "preprocessor_config.json", _preprocessing(facts))
    metrics = {
        "student": {**facts.test, "parameters": facts.parameters, "flops": facts.flops},
        "teacher": _teacher(facts, teacher),
        "baseline": facts.baseline,
        "gain": gain(facts),
        **({"curves": facts.curves} if facts.curves else {}),
        "exports": list(exports),
        **made,
    }
    _write(folder / "metrics.json", metrics)
    files = {**facts.files, **{path.name: digest_of(path) for path in sorted(folder.iterdir()) if path.name not in DOCUMENTS}}
    _write(folder / "provenance.json", {"spec": facts.spec, "epochs": facts.epochs, "digests": dict(facts.digests), "files": files, **made})
    (folder / "README.md").write_text(card(facts, exports, versions(), threads=threads, teacher=teacher))
    sums = folder / "SHA256SUMS"
    sums.unlink(missing_ok=True)
    sums.write_text("".join(f"{digest_of(path)}  {path.name}\n" for path in sorted(folder.iterdir())))
    return [folder / name for name in (*DOCUMENTS, sums.name)]


def _teacher(facts: Facts, latency: Sequence[Mapping[str, float]] | None) -> dict[str, Any] | None:
    if facts.teacher is None:
        return None
    return {**facts.teacher, **({"latency": list(latency)} if latency else {})}


def _config(facts: Facts) -> dict[str, Any]:
    return {
        "architecture": facts.family.model_dump(mode="json"),
        "normalization": _normalization(facts),
        "classes": list(facts.class_names),
        "id2label": {str(k): name for k, name in enumerate(facts.class_names)},
        "input": list(facts.family.input),
        "range": list(facts.range),
    }


def _preprocessing(facts: Facts) -> dict[str, Any]:
    """How a sample becomes the network's input: in the Hub's words where it has some."""
    image = len(facts.family.input) == 3
    space = _normalization(facts) or {}
    return {
        "input": list(facts.family.input),
        "layout": "channels, height, width" if image else "features, in the order of the dataset's columns",
        **({"size": {"height": facts.family.input[1], "width": facts.family.input[2]}} if image else {}),
        "dtype": "float32",
        "range": list(facts.range),
        "do_normalize": bool(space),
        **({"image_mean": space["mean"], "image_std": space["std"]} if space else {}),
        "normalization_inside": [name for name, form in formats().items() if form.normalizes],
    }


def _normalization(facts: Facts) -> dict[str, list[float]] | None:
    return None if facts.normalization is None else {name: list(values) for name, values in facts.normalization.items()}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
