"""The audit: every attack that we know of, compared with the certificate."""
