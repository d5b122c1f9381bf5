"""A run: plan, prepare, schedule, judge. No torch."""
