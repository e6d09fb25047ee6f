"""CertificateSigningRequests: approved, signed and taken away; `requests` reads what is asked."""
