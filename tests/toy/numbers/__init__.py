"""A toy stage without inputs: counts."""
