"""Acceptance tests of a GPU, in stages: does the driver answer, does a kernel compute, does a network train?

Each stage is one file of `stages`. The runner starts it in a process of its own with a time limit, because a call into a
broken driver may never return.
"""
