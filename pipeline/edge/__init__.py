"""Small models for devices: int8 export, and what it does to size, speed, accuracy and explanations."""
