"""How long the log keeps what: policies, legal holds, pruning."""
