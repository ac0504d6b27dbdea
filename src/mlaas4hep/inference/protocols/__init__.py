"""The protocols that clients speak, each as routes over the same prediction path."""
