"""What can be typed behind a command: its own flags and every setting, how they are read, and what --help says."""
