"""Explanation methods: the contract that each keeps, and the registry in which they are found."""
