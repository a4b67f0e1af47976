"""What makes a benchmark's number untrustworthy: leaks between splits, and colour."""
