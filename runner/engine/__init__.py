"""Our verifier: attack, bounds, branch and bound, under a deadline."""
