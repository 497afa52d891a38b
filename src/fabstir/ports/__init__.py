"""What the decisions need from outside, as Protocols. Shells implement them; `bootstrap` connects them."""
