"""Facts that say what several other facts mean together, as whether the driver supports a GPU.

They are built like the facts of `dlhealth.probes`, from the annotations of `probe`, and may also hold evidence,
unknowns and severities for the rules that share them.
"""
