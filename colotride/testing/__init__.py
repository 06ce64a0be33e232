"""Contract test suites: subclass one in a test file and give it your own defense or data set; pytest does the rest."""
