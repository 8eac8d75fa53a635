"""Every attack we know, held against the certificate."""
