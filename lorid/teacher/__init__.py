"""Teachers: who is asked for knowledge, what is kept of each answer, and what asking may cost.

Nothing here imports ray or torch: `lorid.distributed.knowledge` puts it on a cluster, and the
teacher that runs on the cluster itself is `lorid.engines.vllm`.
"""
