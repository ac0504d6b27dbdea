"""The stream for other libraries."""
