"""The run folder: schema, append, read back as DataFrames. Never imports torch."""
