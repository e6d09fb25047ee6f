"""HTTP/1.1 on httptools: messages, server and client. No Kubernetes word in here."""
