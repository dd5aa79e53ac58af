"""How varied the generated data are, and whether they repeat what the student is judged on."""
