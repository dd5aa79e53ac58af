"""Charts as SVG text: no library, no script, nothing to load. Colours follow the reader's light or dark setting."""
