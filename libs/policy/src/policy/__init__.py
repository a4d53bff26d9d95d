"""Promotion policies: read, asked, and judged again. Pure: no clock, no network, no database."""
