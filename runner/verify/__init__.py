"""Attack -> incomplete -> complete, under a deadline."""
