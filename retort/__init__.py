"""The Python client of Retort, a web service for knowledge-distillation jobs: `from retort import Client`."""

from retort.client import Client
from retort.errors import ApiError, Corrupted, Rejected, RetortError, TookTooLong, Unreachable
from retort.job import Job
from retort.sweep import Sweep
from retort.values import Artifact, Asset, Event, Export, Upload
from retort.version import __version__

__all__ = [
    "ApiError",
    "Artifact",
    "Asset",
    "Client",
    "Corrupted",
    "Event",
    "Export",
    "Job",
    "Rejected",
    "RetortError",
    "Sweep",
    "TookTooLong",
    "Unreachable",
    "Upload",
    "__version__",
]
