"""The control plane: one loop keeps a pipeline's children as its spec says, the other sizes its consumers."""
