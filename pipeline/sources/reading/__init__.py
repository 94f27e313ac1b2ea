"""From a URI of a listing to bytes."""
