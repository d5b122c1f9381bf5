"""What is asked: instances, properties, and counterexamples with their replay. No torch."""
