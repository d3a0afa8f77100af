"""What words on the command line mean: the parser, and the options of each command."""
