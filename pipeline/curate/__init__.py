"""Review queues: recipes in SQL over the rows of a store, and what they need of its maps."""
