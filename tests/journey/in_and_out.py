"""In and out: a checkpoint, a network and data of the user's own go in; a verified student comes out, and teaches the next one."""

import io
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.journey.stacks import Stack
from tests.journey.story import KD

NETWORK = {
    "family": "graph",
    "input": [1, 8, 8],
    "classes": 10,
    "nodes": [
        {"name": "conv1", "op": "conv2d", "channels": 16, "kernel": 3, "padding": 1, "bias": False},
        {"name": "bn1", "op": "batch_norm"},
        {"name": "relu1", "op": "relu"},
        {"name": "conv2", "op": "conv2d", "channels": 16, "kernel": 3, "padding": 1},
        {"name": "add1", "op": "add", "from": ["conv2", "relu1"]},
        {"name": "relu2", "op": "relu"},
        {"name": "flatten", "op": "flatten"},
        {"name": "fc", "op": "linear", "features": 10},
    ],
}


class InAndOut:
    """The journey of what people bring; a stack is a subclass beside its fixture `stack`."""

    def test_what_people_have_goes_in_and_a_verified_student_comes_out_that_can_teach(
        self, stack: Stack, made: Path, tmp_path: Path
    ) -> None:
        digits = np.load(made / "digits.npz")
        weights = {f"module.{name}": tensor for name, tensor in load_file(made / "teacher.safetensors").items()}
        torch.save({"epoch": 20, "state_dict": weights}, tmp_path / "teacher.pth")
        with zipfile.ZipFile(tmp_path / "digits.zip", "w") as archive:
            for split in ("train", "test"):
                archive.writestr(f"{split}-00000-of-00001.parquet", parquet_of(digits[f"x_{split}"], digits[f"y_{split}"]))

        uploaded = {
            "dataset": stack.asked("upload", "dataset", str(tmp_path / "digits.zip")),
            "teacher": stack.asked("upload", "teacher", str(tmp_path / "teacher.pth"), "--architecture", str(made / "teacher.json")),
            "student": stack.asked("upload", "architecture", json.dumps(NETWORK), "--mean", "0.31", "--std", "0.38"),
        }
        assert {name: (each["status"], each["problem"]) for name, each in uploaded.items()} == dict.fromkeys(uploaded, ("ready", None))
        assert uploaded["dataset"]["report"]["counts"] == {"train": 1197, "test": 600}

        ids = [word for name, each in uploaded.items() for word in (f"--{name}", each["id"])]
        words = ("submit", *ids, *KD, "--epochs", "8", "--set", 'recipe.optimizer={"name": "sgd", "lr": 0.05}')
        words += ("--set", 'exports=["safetensors", "onnx_int8"]')
        planned = stack.asked(*words, "--dry-run")
        assert planned["valid"] is True
        assert planned["estimates"]["seconds"] or planned["estimates"]["reason"]

        job = stack.asked(*words, "--watch")
        assert [(each["format"], each["refused"]) for each in job["result"]["exports"]] == [("safetensors", None), ("onnx_int8", None)]
        student = tmp_path / "student"
        with zipfile.ZipFile(stack.asked("download", job["id"], "--bundle", "--to", str(tmp_path))["bundle"]) as bundle:
            bundle.extractall(student)
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=student, check=True)
        session = onnxruntime.InferenceSession(student / "model.int8.onnx", providers=["CPUExecutionProvider"])
        [logits] = session.run(None, {"x": np.float32(digits["x_test"][:, None]) / 255})
        right, of = int((logits.argmax(1) == digits["y_test"]).sum()), job["result"]["test"]
        assert right / 600 == job["result"]["exports"][1]["facts"]["accuracy"]
        assert abs(right - of["accuracy"] * of["n"]) <= 12  # two points of 600 are allowed
        assert of["accuracy"] > 0.8

        words = ("submit", "--teacher", job["id"], "--student", uploaded["student"]["id"], "--dataset", uploaded["dataset"]["id"])
        following = stack.asked(*words, "--method", "kd", "--epochs", "1", "--set", "exports=[]", "--watch")
        assert following["result"]["teacher"]["accuracy"] == of["accuracy"]


def parquet_of(x: Any, y: Any) -> bytes:
    """Images and labels in the layout of Hugging Face."""

    def png(pixels: Any) -> bytes:
        return written(lambda file: Image.fromarray(pixels).save(file, "PNG"))

    table = pa.table({"image": [{"bytes": png(each), "path": None} for each in x], "label": pa.array(y, pa.int64())})
    return written(lambda file: pq.write_table(table, file))


def written(write: Callable[[io.BytesIO], Any]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()
