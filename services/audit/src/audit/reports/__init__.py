"""Questions that auditors ask, answered from the views, with the index of the entry that each fact rests on."""
