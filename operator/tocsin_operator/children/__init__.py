"""Pure builders: a pipeline in, one Kubernetes object out. Nothing here reads or writes the world."""
