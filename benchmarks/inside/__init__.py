"""What runs in a contender's own process. Standard library only: it is started in environments that hold nothing else."""
