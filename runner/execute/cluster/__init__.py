"""Where the shards of a run go: this machine, SLURM, Ray."""
