"""What looks for counterexamples."""
