"""The node agent: pods from the API to containers in the engine, status back."""
