"""From facts to a diagnosis: loads the rules, gives them their facts, and orders their findings."""
