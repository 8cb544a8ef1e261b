"""What devices' conversations leave behind between their legs: sessions, their tokens and where they are kept."""
