"""The `heatlas` command: one file per subcommand. Nothing here imports torch or Ray before it must."""
