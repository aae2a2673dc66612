"""dlhealth as a part of the system: watches, alerts, and repairs what the policy allows."""
