"""The keeper of the vault of identities: whom a pseudonym stands for, what the log knows of them, their erasure."""
