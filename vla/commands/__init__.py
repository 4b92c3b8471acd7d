"""One file a command: its options and help, one call, what it prints.

Nothing heavy is imported at the top of these files; a command brings in its stage when it runs.
"""
