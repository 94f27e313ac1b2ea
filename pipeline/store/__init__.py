"""The store: Parquet parts, their schema, footers, digests, and reading them back."""
