"""What calls cost, and what they may cost: prices, the meter, budgets. Plain values but for `treasury.py`, the edge."""
