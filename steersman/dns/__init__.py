"""The cluster DNS server: records from Services and EndpointSlices."""
