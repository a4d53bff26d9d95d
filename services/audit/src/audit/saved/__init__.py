"""Saved searches: by hand or on a schedule, each run of which is an event, and with alerts."""
