"""The questions that students are compared on."""
