"""Many commands at once: in processes of this machine, or on a Ray cluster, behind one interface.

executors.py     the interface is `concurrent.futures.Executor`; which one `--on` names
command.py       one command of ours in a process of its own, wherever that is
ray_cluster.py   the executor on Ray; the only Ray import
spread.py        runs, each in a process of its own
"""
