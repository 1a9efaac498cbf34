"""What people read: tables for the terminal, pages, charts, and the JSON they are made of."""
