"""What the judging stages share: the judge's settings, its prompts, and reading the students' answers."""
