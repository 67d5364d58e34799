"""Image sets of any form that a person has them in, brought into the engine's canonical form once."""

import io
import shutil
import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from core.blobs import digest_of
from core.data import DatasetReport, ingest, open_dataset


def canonical(file: Path, folder: Path) -> tuple[Path, DatasetReport]:
    """The canonical form of an image set in `folder`, made there unless an earlier call did, and its measurements.

    The set is a tar archive (see `unpack`), a zip of image folders, an .npz, or canonical already (.safetensors).
    """
    name = file.name.partition(".")[0]
    out = folder / f"{name}-{digest_of(file)[:8]}.safetensors"
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if ".tar" in file.suffixes:
            arrays = out.with_suffix(".npz")
            classes = unpack(file, arrays)
            ingest(arrays, {"format": "npz", "layout": "NHWC", "class_names": classes}, out)
            arrays.unlink()
        elif file.suffix == ".safetensors":
            shutil.copyfile(file, out)
        else:
            ingest(file, {"format": "npz" if file.suffix == ".npz" else "imagefolder"}, out)
    return out, open_dataset(out).report


def unpack(file: Path, out: Path) -> tuple[str, ...]:
    """Write the images of a tar archive, <name>/{train,test}/<class>/<image>, as an .npz at `out`; gives the classes, sorted.

    Nothing is extracted: images pass through memory, so no name in the archive can lead anywhere. All have one size. They stand in the
    order of their names, whatever that of the archive is.
    """
    found: dict[str, list[tuple[str, str, np.ndarray]]] = defaultdict(list)
    with tarfile.open(file) as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            stream = archive.extractfile(member) if len(parts) == 4 and parts[1] in ("train", "test") else None
            if stream is not None:
                with Image.open(io.BytesIO(stream.read())) as image:
                    found[parts[1]].append((parts[2], parts[3], np.asarray(image, np.uint8)))
    if set(found) != {"train", "test"}:
        raise ValueError(f"{file.name} has no images under <name>/train/<class>/ and <name>/test/<class>/")
    classes = tuple(sorted({label for images in found.values() for label, _, _ in images}))
    number = {label: position for position, label in enumerate(classes)}
    arrays: dict[str, np.ndarray] = {}
    for split, images in found.items():
        images.sort(key=lambda image: image[:2])
        arrays[f"x_{split}"] = np.stack([pixels for _, _, pixels in images])
        arrays[f"y_{split}"] = np.array([number[label] for label, _, _ in images], np.int64)
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return classes
