"""The commands of `retort`, one file a subject."""
