"""What every room stands on: errors, files, strictness, locks, threads, devices. Imports no room."""
