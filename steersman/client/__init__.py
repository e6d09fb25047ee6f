"""How every component reaches the API server: transport, client, informers, work queues, controllers."""
