"""The command line: one module per command. Each parses, calls ``api`` and prints a report."""
