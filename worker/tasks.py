"""The one task: it takes no arguments and says only "try to claim". Lost, late and doubled messages are harmless."""

from celery import Celery

from db.wake import TASK
from worker.slots import Slots


def register(app: Celery, slots: Slots) -> None:
    """Let a wake serve the slots. The task lasts as long as there is work, so that a busy worker takes no further wakes from idle ones."""

    def wake() -> None:
        slots.wake()

    app.task(name=TASK, ignore_result=True)(wake)
