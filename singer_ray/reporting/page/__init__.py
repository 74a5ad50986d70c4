"""The page: figures, tables and sections of what was read."""
