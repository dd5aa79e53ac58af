"""The seed and reference rows that come with the project (`builtin:`); README.md says where they are from."""
