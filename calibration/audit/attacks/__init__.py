"""The attacks: one module each.

To add an attack:

1. Write a module in this package with one `Attack` (attacks/base.py): its name, the galleries it needs, its pieces of
   work, what a piece does, and its title and text for the page.
2. Put it into `ATTACKS` (attacks/registry.py) and raise `ATTACKS_VERSION` (campaign.py).
3. Give it a row in the table of `docs/audit.md`: `| NAME | ... |`.

An attack that lacks a part cannot be made, and one that yields no pieces of work stops the audit with the reason.
"""
