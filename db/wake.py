"""The doorbell: the one Celery configuration, and how to ring. A ring that is lost, late or doubled does no harm: the row is the truth."""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from celery import Celery

TASK = "retort.wake"
"""The task that a worker registers: it takes no arguments and tries to claim."""
QUEUES = ("gpu", "cpu")
_PATIENCE = 2.0
_EXPIRES = 60

log = logging.getLogger(__name__)


def doorbell(broker_url: str, *, socket_timeout: float = 5.0) -> Celery:
    """A Celery application at `redis://…`, or at `filesystem:///folder` for one machine. The API rings with `socket_timeout` 2."""
    local = urlsplit(broker_url).scheme == "filesystem"
    app = Celery("retort", broker="filesystem://" if local else broker_url, set_as_current=False)
    app.conf.update(
        broker_transport="db.broker:Transport" if local else None,
        broker_transport_options=_folders(broker_url) if local else _patience(socket_timeout),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=2,
        task_publish_retry=False,
        task_ignore_result=True,
        result_backend=None,
        task_acks_late=False,  # the database owns recovery: a message must never live as long as a job
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        task_serializer="json",
        accept_content=["json"],
        task_time_limit=None,  # limits belong to the supervisor
        task_create_missing_queues=True,
        enable_utc=True,
    )
    return app


def ring(app: Celery, queues: Iterable[str]) -> bool:
    """Wake a worker of each of these queues (`any`: of each there is). Best effort: two seconds at most, errors are logged, not raised.

    Whether the broker took every ring; that says nothing of who hears it.
    """
    names = [name for queue in queues for name in (QUEUES if queue == "any" else (queue,))]
    taken = threading.Event()
    ringing = threading.Thread(target=_ring, args=(app, names, taken), name="ring", daemon=True)
    ringing.start()
    ringing.join(_PATIENCE)
    if ringing.is_alive():
        log.warning("the broker does not answer; the workers will find the work by themselves")
    return taken.is_set()


def _ring(app: Celery, names: Iterable[str], taken: threading.Event) -> None:
    for name in names:
        try:
            app.send_task(TASK, queue=name, expires=_EXPIRES, ignore_result=True)
        except Exception as error:  # a broker can fail in many ways, and each leaves the job where it is: in the database
            log.warning("could not wake the queue %s: %s", name, error)
            return
    taken.set()


def _folders(url: str) -> dict[str, object]:
    folder = Path(unquote(urlsplit(url).path))
    places = {"data_folder_in": folder / "messages", "data_folder_out": folder / "messages", "control_folder": folder / "control"}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    return {"polling_interval": 0.1, **{name: str(place) for name, place in places.items()}}


def _patience(socket_timeout: float) -> dict[str, object]:
    return {
        "visibility_timeout": 3600, "socket_timeout": socket_timeout, "socket_connect_timeout": min(2.0, socket_timeout / 2),
        "socket_keepalive": True, "health_check_interval": 15, "max_retries": 1, "interval_start": 0, "interval_step": 0.1,
        "interval_max": 0.2,
    }  # fmt: skip
