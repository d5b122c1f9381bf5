"""Tables of a run. Never imports torch."""
