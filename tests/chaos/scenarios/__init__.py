"""What is done to the service, by theme; importing this enters every scenario into the catalogue."""

from tests.chaos.scenarios import deaths

__all__ = ["deaths"]
