"""A suite on a cluster: `vla sweep suite.toml --launcher slurm`.

options.py     what is asked of SLURM: the suite file's [slurm], `--slurm key=value`
cluster.py     what SLURM is told and asked: sbatch by submitit, squeue, sacct
job.py         what runs on the node: one run, by the same scheduler as locally
job_status.py  how a run stands, from SLURM and from what its job wrote
watch.py       submits, and keeps manifest, status and notes true

Suite directory, Python and data have to lie on a file system that the nodes share, and that knows `flock`.

<suite>/logs/<run>.json     the run's status, as its job writes it
<suite>/logs/slurm/         submitit's: script, call and output of each job, by job id
"""
