"""The `tocsin` command. Each subcommand imports its role only when asked, so an image carries one role's libraries."""
