"""The tasks of ARTE: questions with known answers, made by rule or read from files, split once by what they are for."""
