"""Commands to devices: signed with the operator's key when the API asks, kept, and published by the bridge."""
