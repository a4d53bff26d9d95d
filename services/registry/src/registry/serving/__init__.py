"""Serving: what to run (resolve), when it changes (watch), who runs it (usage, reports), what nobody runs (stale)."""
