"""Compare models before and after a repair, over several seeds, on a test split that was locked before."""
