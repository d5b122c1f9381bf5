"""Experiments: the same bounds under every strategy and over several numbers of ranks."""
