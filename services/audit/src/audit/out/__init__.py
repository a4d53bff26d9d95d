"""What leaves the audit service: exports, archives, evidence bundles and the feed for a SIEM."""
