"""The feed for a SIEM: OCSF and CloudEvents, from a cursor, at least once, the index of the log in every record."""
