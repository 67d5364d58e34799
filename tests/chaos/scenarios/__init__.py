"""What is done to the service, by theme; importing this enters every scenario into the catalogue."""

from tests.chaos.scenarios import broker, clock, database, deaths, disk, points, poison, requests, resume, rot, shipped, wishes

__all__ = ["broker", "clock", "database", "deaths", "disk", "points", "poison", "requests", "resume", "rot", "shipped", "wishes"]
