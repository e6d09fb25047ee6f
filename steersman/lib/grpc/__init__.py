"""gRPC calls over one HTTP/2 connection: what a client of etcd or of a key service needs, and no more."""
