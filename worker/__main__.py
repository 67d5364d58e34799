"""`python -m worker`: serve jobs until SIGTERM."""

import sys

from pydantic import ValidationError

from core.shim import die_with_parent
from worker.app import arguments, build, log_plainly
from worker.settings import Settings


def main() -> None:
    """Read the settings, tie this process to its parent where one is named, and run Celery."""
    try:
        settings = Settings()
    except ValidationError as error:
        sys.exit(f"the settings of the worker are wrong:\n{error}")
    if settings.parent:
        die_with_parent(settings.parent)
    log_plainly()
    build(settings).worker_main(arguments(settings))


if __name__ == "__main__":
    main()
