"""Branch and bound: over boxes of inputs, or over ReLUs."""
