"""The readers of sh (dash), bash and zsh."""
