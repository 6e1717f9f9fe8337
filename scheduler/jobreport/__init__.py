"""One job for people: what is known of it, gathered (`gather`) and laid out as one page without a network (`page`)."""
