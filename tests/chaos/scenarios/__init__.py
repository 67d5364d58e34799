"""What is done to the service, by theme; importing this enters every scenario into the catalogue."""

from tests.chaos.scenarios import deaths, points, poison, requests, resume, wishes

__all__ = ["deaths", "points", "poison", "requests", "resume", "wishes"]
