"""Networks and properties written as a category."""
