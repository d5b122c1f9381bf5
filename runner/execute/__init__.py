"""Gangs of rank processes: start, deadline, kill, memory cap, resume."""
