"""What makes networks and categories."""
