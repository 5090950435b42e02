"""The sandboxes: one protocol in :mod:`.base`, a module for each implementation, :mod:`.choice` picks among them."""
