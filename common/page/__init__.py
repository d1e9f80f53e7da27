"""Pages to look at: one file of HTML, without a server, a network or anything beside it."""
