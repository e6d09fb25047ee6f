"""The store on an etcd cluster, shared by any number of API servers."""
