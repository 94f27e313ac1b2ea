"""The top floor: files, formats and people. Plans a run, stores its rows, opens the store, faces the user."""
