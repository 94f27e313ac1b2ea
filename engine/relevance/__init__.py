"""Relevance carried backwards through a traced network, layer by layer."""
