"""What runs in the project's own environment: it makes the others, plays the rounds, and reports."""
