"""Facts that combine several other facts, for example whether the driver supports a GPU.

They are built like the facts of `dlhealth.probes`, from the annotations of `probe`. They may also contain evidence,
unknowns and severities for the rules that share them.
"""
