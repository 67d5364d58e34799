"""Where a job runs, decided by the worker: device, threads and cadences; and torch pinned so that it repeats itself."""

import platform
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field


class Runtime(BaseModel):
    """The `runtime` of a job.json. A resumed run equals the uninterrupted one only on the same number of threads: it decides rounding."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(2, ge=1)
    checkpoint_seconds: float = Field(60, ge=0)
    report_seconds: float = Field(0.5, ge=0)

    def pin(self) -> None:
        """A fixed number of threads, deterministic kernels, full float32. A GPU only warns of a kernel that has no deterministic form."""
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(True, warn_only=self.device == "cuda")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False

    def hardware(self) -> str:
        """What the figures were made on, for people."""
        if self.device == "cuda":
            return torch.cuda.get_device_name()
        table = Path("/proc/cpuinfo")
        lines = table.read_text(errors="replace").splitlines() if table.exists() else []
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
        return f"{name}, {self.threads} thread{'s'[: self.threads > 1]}"
