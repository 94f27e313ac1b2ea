"""Push suggestions to annotation tools, and pull what people made of them back as decisions."""
