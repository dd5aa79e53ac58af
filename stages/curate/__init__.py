"""Curation: which generated instructions are kept, why the others are not, and which side of the split they go to."""
