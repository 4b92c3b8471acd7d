"""A policy for others: folder, model card, Hub."""
