"""What the API server tells of itself: metrics and health, under the original's names."""
