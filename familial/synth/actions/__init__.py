"""The kinds of clip: who does what and when.

    kind --plan.make_plan--> Plan: actors whose motion is written, annotations, caption

To add an action, write one function with the decorator `base.action` in the file of its subject (`ordinary`,
`encounters`, `floor`, `chores`, `groups`, `falls`, `fights`). `catalogue` collects them.
"""
