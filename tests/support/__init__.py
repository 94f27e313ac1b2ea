"""What several tests share: networks, stores, image corpora, servers and whole small runs."""
