"""A policy in several environments side by side, and what came of it."""
