"""The version of the client, of the command, and of the data folders that `retort up` makes."""

__version__ = "0.1.0"
