"""What the folders of searches and runs say, and what follows from it."""
