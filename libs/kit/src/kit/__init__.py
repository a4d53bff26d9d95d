"""Plumbing of a Hallmark service. No business word in it."""
