"""A host's own helpers for its tests."""
