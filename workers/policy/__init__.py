"""Every decision of a run: retry, quarantine, spawn, give up. Pure: no Ray, no clock."""
