"""One file per format version: ``v0001_…``, ``v0002_…``."""
