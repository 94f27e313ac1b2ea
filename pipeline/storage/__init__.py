"""Bytes and URIs: paths behind fsspec, atomic writes, retries. Does not know what it stores."""
