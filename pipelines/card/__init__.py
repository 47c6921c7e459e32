"""What a snapshot holds, for a person: text, contact sheets, and a data card in HTML."""
