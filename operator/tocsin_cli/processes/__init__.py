"""Child processes that cannot outlive the one that started them, and come back when they crash."""
