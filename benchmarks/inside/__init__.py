"""What runs in a contender's own process. Standard library only: its environment need not hold anything else."""
