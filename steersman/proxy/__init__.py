"""Services to nftables: a pure table from Services and EndpointSlices, applied in one transaction."""
