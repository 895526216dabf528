"""`report`: one HTML file that shows what was kept, why, and with which images."""
