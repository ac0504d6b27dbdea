"""The event vector: which value goes to which place, and how it is scaled."""
