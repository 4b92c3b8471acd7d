"""Meta-World: 50 tasks of one arm on a table, from the package metaworld, with its scripted experts."""
