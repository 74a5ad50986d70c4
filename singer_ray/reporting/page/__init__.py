"""The page of a report: figures, tables and sections."""
