"""What builds, re-runs and publishes the book. Knows chapters, not physics; no chapter imports it."""
