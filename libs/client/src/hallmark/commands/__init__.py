"""The nouns of the command line, one module each."""
