"""The worker as a Celery application: what starts with the process, and what ends with it.

It never imports torch: it starts fast, cannot be crashed by a child, and can always kill what it started.
"""

import logging
import threading
from typing import Any

from celery import Celery, bootsteps, signals

from core.blobs import Directory
from db.ids import new_id
from db.session import connect
from db.wake import doorbell
from worker.calibrate import Calibrator
from worker.child import Spawner
from worker.home import Home
from worker.maintain import Maintainer
from worker.settings import Settings
from worker.slots import Slots
from worker.supervise import Means
from worker.tasks import register

log = logging.getLogger(__name__)

_LEAVE = 100.0
"""So long a checkpoint may take on its way into the database: less than the service manager waits (`docker-compose.yml`)."""
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def build(settings: Settings) -> Celery:
    """The application of this process, ready for `worker_main`. One a process: Celery's signals are global."""
    database = connect(settings.database_url, directory=settings.blobs)
    means = Means(
        settings=settings,
        database=database,
        spawner=Spawner(),
        home=Home(settings.data / "jobs", new_id("wrk")),
        cache=Directory(settings.data / "cache"),
        stopping=threading.Event(),
    )
    app = doorbell(settings.broker_url)
    app.conf.update(worker_redirect_stdouts=False)
    slots = Slots(means)
    calibrator = Calibrator(means, slots)
    maintainer = Maintainer(means, slots, app, calibrator)
    register(app, slots)

    class Serve(bootsteps.StartStopStep):  # type: ignore[misc]
        """Begins after SIGTERM is ours to answer, and before the broker is asked for: `worker_ready` never comes while that is away."""

        requires = ("celery.worker.components:Pool",)

        def start(self, parent: Any) -> None:
            """See `bootsteps.StartStopStep`."""
            maintainer.start()
            slots.start()
            calibrator.start()
            log.info("worker %s serves %s with %d slots", means.home.worker, ",".join(settings.queues), settings.slots)

    def stop(**_: Any) -> None:  # in a signal handler: a flag, and nothing that could wait
        means.stopping.set()

    def leave(**_: Any) -> None:
        if not means.stopping.is_set():  # a signal may come here too, and must not find this thread inside `set`
            means.stopping.set()
        slots.close(_LEAVE)
        calibrator.close(settings.grace)
        maintainer.close(settings.grace)
        means.home.close()
        database.close()
        log.info("worker %s left", means.home.worker)

    app.steps["worker"].add(Serve)
    signals.setup_logging.connect(_logged_already, weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_shutdown.connect(leave, weak=False)
    return app


def arguments(settings: Settings) -> list[str]:
    """What `celery worker` is told. Threads that only wait on pipes cost nothing, and see the end of the process coming."""
    return [
        "--quiet", "worker", "--pool", "threads", "--concurrency", str(settings.slots), "--queues", ",".join(settings.queues),
        "--without-gossip", "--without-mingle", "--without-heartbeat", "-O", "fair", "--hostname", "retort@%h",
    ]  # fmt: skip


def log_plainly() -> None:
    """One line for each event of life, on standard error."""
    logging.basicConfig(level=logging.INFO, format=_FORMAT)
    for name, level in (("celery", logging.WARNING), ("kombu", logging.WARNING), ("kombu.connection", logging.ERROR)):
        logging.getLogger(name).setLevel(level)


def _logged_already(**_: Any) -> None:
    """That somebody listens keeps Celery from setting up the logging itself."""
