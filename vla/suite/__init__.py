"""Named sets of training runs: `vla sweep suite.toml`.

<suite>/manifest.json       what was asked: settings and exact commands of each run, versions
<suite>/status.json         per run: state, pid, device, log, tracker, step, times
<suite>/notes.md            a table of results between two marks; everything else in it is the user's
<suite>/runs/<run>/         run directories
<suite>/logs/<run>.log      what the commands printed
<suite>/logs/<run>.lock     held by a run's process as long as it lives
<suite>/logs/<run>.json     on a cluster: the run's status, as its job writes it (vla/suite/slurm)
"""
