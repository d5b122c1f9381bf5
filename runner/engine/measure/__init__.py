"""Time, memory and traffic of one rank."""
