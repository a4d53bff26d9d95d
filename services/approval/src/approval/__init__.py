"""Approval: policies, gates, votes and signed decisions. It never changes a stage; the registry does."""
