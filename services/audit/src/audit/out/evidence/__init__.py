"""The evidence bundle of one version: everything about it, provable and readable without the service."""
